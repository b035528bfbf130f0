//! The passages that the language model reads where it is not those that are retrieved, each by itself.

use std::collections::HashSet;

use burn_rag::prelude::*;

use super::{
    Failure,
    corpus::Corpus,
    settings::{AnswerFrom, Setting},
};

/// Passages that may answer a question whose own is not known.
const LOOKED_AT: usize = 20;

/// The passages that a setting reads, of a corpus.
pub struct Contexts<'a> {
    setting: Setting,
    corpus: &'a Corpus,
}

/// The one passage that is read for a question.
#[derive(Clone, Copy)]
enum Given {
    /// All that is retrieved, joined.
    Joined,
    /// The passage that answers it.
    Gold,
}

impl<'a> Contexts<'a> {
    /// Those of a setting.
    pub fn new(setting: Setting, corpus: &'a Corpus) -> Self {
        Self { setting, corpus }
    }

    /// Whether questions are answered from the passages that are found, each by itself.
    pub fn are_retrieved(&self, from: AnswerFrom) -> bool {
        from == AnswerFrom::Retrieved && self.setting != Setting::Concatenated
    }

    /// A retriever that finds what the language model is to be trained on for these pairs.
    pub fn to_train(
        &self,
        retriever: &Retriever,
        pairs: &[QuestionAnswer],
    ) -> Result<Retriever, Failure> {
        match self.setting {
            Setting::Concatenated => self.given(Given::Joined, retriever, pairs),
            Setting::Gold => self.given(Given::Gold, retriever, pairs),
            _ => Ok(retriever.clone()),
        }
    }

    /// A retriever that finds what these questions are to be answered from.
    pub fn to_answer(
        &self,
        from: AnswerFrom,
        retriever: &Retriever,
        pairs: &[QuestionAnswer],
    ) -> Result<Retriever, Failure> {
        match (from, self.setting) {
            (AnswerFrom::Gold, _) => self.given(Given::Gold, retriever, pairs),
            (_, Setting::Concatenated) => self.given(Given::Joined, retriever, pairs),
            _ => Ok(retriever.clone()),
        }
    }

    /// A retriever that finds one passage for each question: the one that is given for it.
    ///
    /// It is filed under the question's own vector at unit length, so that no other question is nearer: the inner product of
    /// a vector with any unit vector is largest with its own direction. The encoder of questions must stay as it is.
    fn given(
        &self,
        given: Given,
        retriever: &Retriever,
        pairs: &[QuestionAnswer],
    ) -> Result<Retriever, Failure> {
        let mut seen = HashSet::new();
        let pairs = pairs.iter().filter(|pair| seen.insert(&pair.question));
        let pairs: Vec<&QuestionAnswer> = pairs.collect();
        let questions: Vec<&str> = pairs.iter().map(|pair| &pair.question[..]).collect();
        let found = match given {
            Given::Joined => retriever.retrieve(&questions)?,
            Given::Gold => {
                let looked_at = LOOKED_AT.min(retriever.searched());
                retriever.clone().top_k(looked_at)?.retrieve(&questions)?
            }
        };
        let passages = pairs.iter().zip(&found).enumerate();
        let passages = passages.map(|(at, (pair, found))| {
            let passage = match given {
                Given::Joined => joined(found),
                Given::Gold => self.gold(pair, found),
            };
            // Questions may share a passage, and a knowledge base names each passage once.
            Passage {
                id: at.to_string(),
                ..passage
            }
        });
        let encoder = retriever.question_encoder();
        let mut vectors = encoder.embed_questions(&questions)?;
        for mut vector in vectors.rows_mut() {
            let length = vector.dot(&vector).sqrt();
            vector.map_inplace(|value| *value /= length.max(f32::MIN_POSITIVE));
        }
        let passages: Vec<Passage> = passages.collect();
        let fingerprint = retriever.context_encoder().fingerprint()?;
        let knowledge = KnowledgeBase::new(passages, vectors, Storage::F32, fingerprint)?;
        Ok(Retriever::new(
            encoder.clone(),
            retriever.context_encoder().clone(),
            knowledge,
            1,
        )?)
    }

    /// The passage that the pair names; else the first that is found with an answer in it, or the first.
    fn gold(&self, pair: &QuestionAnswer, found: &[Retrieved]) -> Passage {
        let named = self.corpus.gold(pair);
        let answers = || {
            found
                .iter()
                .find(|found| pair.is_answered_by(&found.passage))
        };
        let first = || answers().or(found.first()).map(|found| &found.passage);
        named
            .or_else(first)
            .cloned()
            .unwrap_or_else(|| Passage::new("", "", ""))
    }
}

/// Passages as one text, the best first.
fn joined(found: &[Retrieved]) -> Passage {
    let texts = found.iter().map(|found| match &found.passage.title[..] {
        "" => found.passage.text.clone(),
        title => format!("{title}\n{}", found.passage.text),
    });
    Passage::new("", "", texts.collect::<Vec<_>>().join("\n\n"))
}
