//! A model trained on its own passages.

use rag_core::Passage;
use rag_generate::{Rag, pack};
use rag_retrieve::EncoderError;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use super::salient::cloze::{SalientSpans, cloze_pairs};
use crate::{
    data::pairs::QuestionAnswer,
    error::{Error, Result},
    run::{config::TrainConfig, report::Report, trainer::Trainer},
};

/// How a model starts from documents alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bootstrap {
    /// The questions.
    pub salient: SalientSpans,
    /// The training on them.
    pub training: TrainConfig,
    /// Share of the questions that is held out to measure with, by whole passages, so that no
    /// sentence is on both sides; from 0 to below 1. The questions of one passage at least are left to
    /// train on.
    pub heldout: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            salient: SalientSpans::default(),
            training: TrainConfig::default(),
            heldout: 0.1,
        }
    }
}

/// Trains a model on its own knowledge base, for users who have documents but no questions: on cloze
/// questions about the names, numbers and dates of its passages (see [`cloze_pairs`]), as REALM is
/// pretrained (Guu et al. 2020, arXiv 2002.08909, section 3.4). What comes back is a start; a
/// [`Trainer`] finishes it on a few real pairs.
///
/// The passage that a question was made of may be retrieved, and mostly is. REALM excludes it, lest
/// the retriever learn to look for the same words; but REALM answers from another corpus, and this
/// model has nothing but these passages. So the retriever learns to find a passage by what is said
/// in it, and the generator to copy from its context. Held-out scores are those of an open book:
/// they say how well the model reads. A retriever that is good already is kept by freezing it
/// ([`TrainConfig::question_encoder`]).
///
/// The mask is text like any other. A vocabulary that lacks it makes it unknown tokens, which still
/// mark the place; name it among the texts of [`ScratchConfig::init`](crate::ScratchConfig::init) to give
/// it tokens of its own. Questions that fill more than half of a context, or whose answer is longer
/// than the model may write, are left out.
///
/// # Errors
/// [`Error::Setting`] where `heldout` is no share; [`Error::NoSpans`]; those of reading passages
/// from the knowledge base, of [`Trainer::new`] and [`Trainer::run`].
pub fn bootstrap(rag: Rag, settings: Bootstrap) -> Result<(Rag, Report)> {
    let Bootstrap {
        salient,
        training,
        heldout,
    } = settings;
    if !(0.0..1.0).contains(&heldout) {
        return Err(Error::setting(
            "heldout",
            heldout,
            "a share of the questions, from 0 to below 1",
        ));
    }
    let knowledge = rag.retriever.local()?;
    let passages: Vec<Passage> = knowledge.passages().collect::<rag_retrieve::Result<_>>()?;
    let mut pairs = Vec::new();
    for pair in cloze_pairs(&passages, &salient) {
        if fits(&rag, &pair)? {
            pairs.push(pair);
        }
    }
    let (pairs, heldout) = split(&pairs, heldout, salient.seed);
    if pairs.is_empty() {
        return Err(Error::NoSpans {
            passages: passages.len(),
        });
    }
    let mut trainer = Trainer::new(rag, training)?;
    let report = trainer.run(&pairs, &heldout)?;
    Ok((trainer.rag(), report))
}

/// Whether the model can read the question beside a passage, and write the answer.
fn fits(rag: &Rag, pair: &QuestionAnswer) -> Result<bool> {
    let encoder = rag.retriever.question_text_encoder()?;
    match encoder.tokenize_questions(&[&pair.question]) {
        Err(rag_retrieve::Error::Encoder(EncoderError::QuestionTooLong { .. })) => {
            return Ok(false);
        }
        found => found?,
    };
    let config = rag.config();
    let positions = config.generator.family().longest_context();
    let context = (config.max_combined_length).min(positions.unwrap_or(usize::MAX));
    // The question with all that a template writes around it.
    let bare = Passage::new("", "", "");
    match pack(&pair.question, [&bare], &config, rag.tokenizer()) {
        Err(rag_generate::Error::QuestionTooLong { .. }) => return Ok(false),
        found => drop(found?),
    }
    let question = rag.tokenizer().encode(&pair.question)?.ids.len();
    // A start and an end token stand around the answer.
    let answer = rag.answer_tokens(&pair.answers[0])?.len() + 2;
    Ok(2 * question <= context && answer <= rag.generation().longest())
}

/// Pairs to train on, and the held-out share: whole passages, drawn until no further one fits.
fn split(
    pairs: &[QuestionAnswer],
    share: f64,
    seed: u64,
) -> (Vec<QuestionAnswer>, Vec<QuestionAnswer>) {
    let mut passages: Vec<&[QuestionAnswer]> = pairs
        .chunk_by(|first, second| first.passage == second.passage)
        .collect();
    passages.shuffle(&mut StdRng::seed_from_u64(seed));
    let most = share * pairs.len() as f64;
    let (mut training, mut heldout) = (Vec::new(), Vec::new());
    for passage in passages {
        let fits = (heldout.len() + passage.len()) as f64 <= most;
        // Training comes first: one passage may be all there is.
        let side = if fits && !training.is_empty() {
            &mut heldout
        } else {
            &mut training
        };
        side.extend_from_slice(passage);
    }
    (training, heldout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(passages: usize, each: usize) -> Vec<QuestionAnswer> {
        let passage = |id: usize| QuestionAnswer {
            passage: Some(id.to_string()),
            ..QuestionAnswer::new("x", "y")
        };
        (0..passages)
            .flat_map(|id| vec![passage(id); each])
            .collect()
    }

    #[test]
    fn passages_are_held_out_whole() {
        let pairs = pairs(20, 3);
        let (training, heldout) = split(&pairs, 0.25, 1);
        assert_eq!((training.len(), heldout.len()), (45, 15));
        let held = |pair: &QuestionAnswer| heldout.contains(pair);
        assert!(!training.iter().any(held));
        assert_eq!(split(&pairs, 0.25, 1), (training, heldout.clone()));
        assert_ne!(split(&pairs, 0.25, 2).1, heldout);
    }

    #[test]
    fn something_is_left_to_train_on() {
        assert_eq!(split(&pairs(1, 5), 0.99, 0).0.len(), 5);
        assert_eq!(split(&pairs(2, 5), 0.99, 0).0.len(), 5);
        assert_eq!(split(&pairs(4, 5), 0.0, 0).1.len(), 0);
        assert!(split(&[], 0.5, 0).0.is_empty());
    }
}
