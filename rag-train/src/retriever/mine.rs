//! Hard negatives: passages that a search takes for the answer's, and that do not hold the answer.

use std::collections::{HashMap, HashSet};

use ndarray::ArrayView1;
use rag_core::Passage;
use rag_retrieve::{Embedder, Hit, Index, KnowledgeBase, LexicalIndex, Retriever};
use rand::{SeedableRng, rngs::StdRng, seq::index::sample};
use serde::{Deserialize, Serialize};

use crate::{
    data::{dpr::DprExample, pairs::QuestionAnswer},
    error::{Error, Result},
    evaluate::has_answer::has_answer,
};

/// Where negatives are looked for, and how many are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mining {
    /// Candidates of a question by its words: the best so many of [`LexicalIndex::search`].
    pub lexical: usize,
    /// Candidates of a question by its vector: the best so many of the knowledge base's index.
    pub dense: usize,
    /// Most negatives of a question. Of more candidates so many are drawn at random, since the best
    /// are the likeliest to be right after all (Qu et al. 2021, arXiv 2010.08191).
    pub negatives: usize,
    /// Share of the positive's score by which a negative's must lie below it, both as the retriever
    /// scores them; what scores higher may well be right. 0.05 asks for at most 95 % of a positive's
    /// score (Moreira et al. 2024, arXiv 2407.15831); the share is one of the score's absolute value, so
    /// that a score below 0 asks for less, too. `None` keeps all, for a retriever that has not learnt.
    pub margin: Option<f32>,
    /// Seed of what is drawn.
    pub seed: u64,
}

impl Default for Mining {
    fn default() -> Self {
        Self {
            lexical: 50,
            dense: 50,
            negatives: 8,
            margin: Some(0.05),
            seed: 0,
        }
    }
}

/// The examples that were found, and counts of the questions that were passed over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mined {
    /// One positive and up to [`Mining::negatives`] hard negatives for each question that has a
    /// positive, in the questions' order; [`write_dpr`](crate::write_dpr) writes them.
    pub examples: Vec<DprExample>,
    /// Questions that were left out: their passage is not known, and no candidate holds an answer.
    pub without_positive: usize,
    /// Examples without a hard negative, since no candidate was left.
    pub without_negative: usize,
    /// Candidates that hold an accepted answer.
    pub dropped_by_answer: usize,
    /// Candidates that score too close to the positive.
    pub dropped_by_margin: usize,
}

/// Questions that are embedded together.
const QUESTIONS: usize = 64;

/// Looks for passages of the retriever's knowledge base that are hard to tell from the one that answers
/// a question, and tells `progress` how many questions are done.
///
/// The positive is the passage that the pair names, or the best candidate that holds an accepted answer,
/// as DPR chooses it; [`has_answer`] says which do. `lexical` is an index
/// over the knowledge base's passages.
///
/// # Errors
/// [`Error::NoExamples`]; [`Error::Setting`] for settings that find nothing, or another `lexical` index;
/// those of the retriever and the index.
pub fn mine(
    pairs: &[QuestionAnswer],
    retriever: &Retriever,
    lexical: &LexicalIndex,
    settings: &Mining,
    mut progress: impl FnMut(usize),
) -> Result<Mined> {
    let knowledge = retriever.local()?;
    settings.check(lexical, knowledge)?;
    if pairs.is_empty() {
        return Err(Error::NoExamples);
    }
    let named = named(pairs, knowledge)?;
    let mut random = StdRng::seed_from_u64(settings.seed);
    let mut mined = Mined::default();
    let mut done = 0;
    for pairs in pairs.chunks(QUESTIONS) {
        let questions: Vec<&str> = pairs.iter().map(|pair| pair.question.as_str()).collect();
        let vectors = retriever.question_encoder().embed_questions(&questions)?;
        let dense = knowledge.index().search(vectors.view(), settings.dense)?;
        for ((pair, vector), dense) in pairs.iter().zip(vectors.rows()).zip(dense) {
            let words = lexical.search(&pair.question, settings.lexical)?;
            let candidates = Candidate::all(knowledge, pair, interleaved(&words, &dense))?;
            let gold = pair.passage.as_ref().and_then(|name| named.get(&name[..]));
            let gold = Candidate::all(knowledge, pair, gold.cloned().unwrap_or_default())?;
            let holds = |candidate: &&Candidate| candidate.holds_answer;
            // A title names several passages, of which one holds the answer.
            let positive = match gold.first() {
                Some(first) => gold.iter().find(holds).or(Some(first)),
                None => candidates.iter().find(holds),
            };
            let Some(positive) = positive else {
                mined.without_positive += 1;
                continue;
            };
            let negatives = mined.sift(knowledge, vector, settings, positive, &gold, &candidates);
            let count = settings.negatives.min(negatives.len());
            let mut drawn = sample(&mut random, negatives.len(), count).into_vec();
            drawn.sort_unstable();
            mined.without_negative += usize::from(drawn.is_empty());
            mined.examples.push(DprExample {
                question: pair.question.clone(),
                answers: pair.answers.clone(),
                positives: vec![positive.passage.clone()],
                negatives: Vec::new(),
                hard_negatives: drawn.iter().map(|&i| negatives[i].clone()).collect(),
            });
        }
        done += pairs.len();
        progress(done);
    }
    Ok(mined)
}

impl Mining {
    fn check(&self, lexical: &LexicalIndex, knowledge: &KnowledgeBase) -> Result<()> {
        if self.lexical == 0 && self.dense == 0 {
            let expected = "at least 1 for one of them";
            return Err(Error::setting("lexical and dense", 0, expected));
        }
        if self.negatives == 0 {
            return Err(Error::setting("negatives", 0, "at least 1"));
        }
        match self.margin {
            Some(margin) if !(margin.is_finite() && margin >= 0.0) => {
                return Err(Error::setting("margin", margin, "a number of at least 0"));
            }
            _ => {}
        }
        if lexical.len() != knowledge.len() {
            return Err(Error::setting(
                "passages of the lexical index",
                lexical.len(),
                "those of the knowledge base, in their order",
            ));
        }
        Ok(())
    }
}

impl Mined {
    /// The candidates that may serve as negatives, and counts the others.
    fn sift(
        &mut self,
        knowledge: &KnowledgeBase,
        question: ArrayView1<f32>,
        settings: &Mining,
        positive: &Candidate,
        gold: &[Candidate],
        candidates: &[Candidate],
    ) -> Vec<Passage> {
        let score = |candidate: &Candidate| {
            let vector = knowledge.index().gather(&[candidate.position]);
            vector.row(0).dot(&question)
        };
        let own = score(positive);
        let highest = settings.margin.map(|margin| own - margin * own.abs());
        let mut negatives = Vec::new();
        for candidate in candidates {
            let is_gold = gold.iter().any(|gold| gold.position == candidate.position);
            // The same text may stand in a knowledge base twice.
            if is_gold || candidate.passage.text == positive.passage.text {
                continue;
            }
            if candidate.holds_answer {
                self.dropped_by_answer += 1;
            } else if highest.is_some_and(|highest| score(candidate) > highest) {
                self.dropped_by_margin += 1;
            } else {
                negatives.push(candidate.passage.clone());
            }
        }
        negatives
    }
}

/// A passage as one question sees it.
struct Candidate {
    position: usize,
    passage: Passage,
    holds_answer: bool,
}

impl Candidate {
    fn all(
        knowledge: &KnowledgeBase,
        pair: &QuestionAnswer,
        positions: Vec<usize>,
    ) -> Result<Vec<Self>> {
        positions
            .into_iter()
            .map(|position| {
                let passage = knowledge.passage(position)?;
                Ok(Self {
                    position,
                    holds_answer: has_answer(&passage.text, &pair.answers),
                    passage,
                })
            })
            .collect()
    }
}

/// The positions of two rankings by rank, each once; at the same rank those of the first stand first.
fn interleaved(first: &[Hit], second: &[Hit]) -> Vec<usize> {
    let mut seen = HashSet::new();
    (0..first.len().max(second.len()))
        .flat_map(|rank| [first.get(rank), second.get(rank)])
        .flatten()
        .map(|hit| hit.position)
        .filter(|&position| seen.insert(position))
        .collect()
}

/// Where the passages stand that pairs name by id or title.
fn named<'a>(
    pairs: &'a [QuestionAnswer],
    knowledge: &KnowledgeBase,
) -> Result<HashMap<&'a str, Vec<usize>>> {
    let names = pairs.iter().filter_map(|pair| pair.passage.as_deref());
    let mut named: HashMap<_, Vec<usize>> = names.map(|name| (name, Vec::new())).collect();
    if named.is_empty() {
        return Ok(named);
    }
    let mut by_id = HashMap::new();
    for (position, passage) in knowledge.passages().enumerate() {
        let passage = passage?;
        if let Some((&name, _)) = named.get_key_value(passage.id.as_str()) {
            by_id.insert(name, vec![position]);
        }
        if let Some(positions) = named.get_mut(passage.title.as_str()) {
            positions.push(position);
        }
    }
    // "1984" is a passage's id rather than an article's title.
    named.extend(by_id);
    Ok(named)
}
