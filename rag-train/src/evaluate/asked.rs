//! Questions that a model was asked, and what it answers where passages are missing.

use rag_core::Passage;
use rag_generate::{Answer, Evidence, Rag, decode::Control};
use rag_retrieve::{Relevance, Retrieved};
use serde::{Deserialize, Serialize};

use super::{answers::language_of, language::normalize, text::exact_match};
use crate::{data::pairs::QuestionAnswer, error::Result};

/// A question with its answer and, where they were asked for, with answers of the same model that had other passages
/// before it. [`Trust::of`](super::Trust::of) judges many of them.
///
/// It is plain data, to be kept in a file while a long measurement goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The question, with the accepted answers.
    pub pair: QuestionAnswer,
    /// The model's answer.
    pub answer: Answer,
    /// Its answer where no passage that holds the answer is in the knowledge base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Answer>,
    /// Its answers where one of the retrieved passages is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// Answers without one of the passages that were retrieved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Without the passage of the highest P(z|x,y).
    pub best: Answer,
    /// Without that of the lowest, for comparison.
    pub least: Answer,
    /// The place of the passage that is most similar to the answer, by the encoder of passages; `None` where the
    /// answer is empty.
    pub similar: Option<usize>,
}

impl Asked {
    /// A question and its answer, nothing else.
    pub fn new(pair: QuestionAnswer, answer: Answer) -> Self {
        Self {
            pair,
            answer,
            removed: None,
            left_out: None,
        }
    }

    /// Whether the answer equals an accepted one, by [`exact_match`] in the language of the pair.
    pub fn is_right(&self) -> bool {
        is_right(&self.pair, &self.answer)
    }

    /// Asks `rag` again as if no passage were in its knowledge base that [holds the
    /// answer](QuestionAnswer::is_answered_by): those are passed over among the retrieved ones, and the next best move
    /// up. `removed` stays `None` where no other passage is left.
    ///
    /// A passage that is passed over has been retrieved all the same: where passages are ranked by
    /// [`reciprocal_rank_fusion`](rag_retrieve::reciprocal_rank_fusion), the ranks of others still count it.
    ///
    /// # Errors
    /// Those of [`Rag::ask`].
    pub fn remove_passages(&mut self, rag: &Rag) -> Result<()> {
        let passages = retrieve_without(rag, &self.pair)?;
        if !passages.is_empty() {
            self.removed = Some(best(rag, &self.pair.question, &passages)?);
        }
        Ok(())
    }

    /// Asks `rag` again twice, without the retrieved passage of the highest and without that of the lowest P(z|x,y).
    /// `left_out` stays `None` where there are fewer than two passages.
    ///
    /// # Errors
    /// Those of [`Rag::ask`].
    pub fn leave_out(&mut self, rag: &Rag) -> Result<()> {
        let evidence = &self.answer.evidence;
        let posterior = |evidence: &Evidence| evidence.posterior;
        let (Some(best), Some(least)) = (
            highest(evidence, posterior),
            highest(evidence, |evidence| -posterior(evidence)),
        ) else {
            return Ok(());
        };
        if evidence.len() < 2 {
            return Ok(());
        }
        // Where all have the same, the highest and the lowest are the first.
        let least = if least == best {
            evidence.len() - 1
        } else {
            least
        };
        self.left_out = Some(LeftOut {
            best: answer_without(rag, &self.answer, best)?,
            least: answer_without(rag, &self.answer, least)?,
            similar: most_similar(rag, &self.answer)?,
        });
        Ok(())
    }

    /// Whether an answer says other than this one, but for case, punctuation and articles.
    pub(super) fn differs(&self, other: &Answer) -> bool {
        let language = language_of(&self.pair);
        normalize(&other.text, language) != normalize(&self.answer.text, language)
    }
}

pub(super) fn is_right(pair: &QuestionAnswer, answer: &Answer) -> bool {
    exact_match(&answer.text, &pair.answers, language_of(pair))
}

/// The place of the first passage with the highest value; `None` where there is none.
pub(super) fn highest(evidence: &[Evidence], value: impl Fn(&Evidence) -> f32) -> Option<usize> {
    let places = 0..evidence.len();
    places.reduce(|best, next| {
        if value(&evidence[next]) > value(&evidence[best]) {
            next
        } else {
            best
        }
    })
}

fn best(rag: &Rag, question: &str, passages: &[Retrieved]) -> Result<Answer> {
    Ok(rag
        .answers(question, passages, Control::default())?
        .swap_remove(0))
}

/// The best `n_docs` passages, those that hold the answer left out.
fn retrieve_without(rag: &Rag, pair: &QuestionAnswer) -> Result<Vec<Retrieved>> {
    let (n_docs, all) = (rag.retriever.n_docs(), rag.retriever.searched());
    let mut retrieved = n_docs;
    loop {
        retrieved = (2 * retrieved).min(all);
        let retriever = rag.retriever.clone().top_k(retrieved)?;
        let mut found = retriever.retrieve(&[&pair.question])?.swap_remove(0);
        found.retain(|found| !pair.is_answered_by(&found.passage));
        if found.len() >= n_docs || retrieved == all {
            found.truncate(n_docs);
            return Ok(found);
        }
    }
}

/// The answer to the same question from the same passages, but for the one at a place.
fn answer_without(rag: &Rag, answer: &Answer, left_out: usize) -> Result<Answer> {
    let kept = answer.evidence.iter().enumerate();
    let kept = kept.filter(|(place, _)| *place != left_out);
    // Answering looks at passages and scores alone.
    let passages: Vec<Retrieved> = kept
        .map(|(position, evidence)| Retrieved {
            passage: evidence.passage.clone(),
            position,
            relevance: Relevance::default(),
            score: evidence.score,
        })
        .collect();
    best(rag, &answer.question, &passages)
}

/// The place of the passage whose vector has the largest inner product with the answer's, both encoded as passages.
fn most_similar(rag: &Rag, answer: &Answer) -> Result<Option<usize>> {
    if answer.text.is_empty() {
        return Ok(None);
    }
    let passages = answer.evidence.iter().map(|evidence| &evidence.passage);
    let texts: Vec<Passage> = passages
        .cloned()
        .chain([Passage::new("", "", answer.text.as_str())])
        .collect();
    let vectors = rag.retriever.context_encoder().embed_passages(&texts)?;
    let Some(last) = vectors.nrows().checked_sub(1) else {
        return Ok(None);
    };
    let similarity = vectors.dot(&vectors.row(last));
    let places = 0..last;
    Ok(places.max_by(|&a, &b| similarity[a].total_cmp(&similarity[b])))
}
