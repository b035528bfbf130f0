use std::collections::HashMap;

use burn::tensor::{Device, Int, Tensor};
use rag_core::{Encoding, Passage};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::{
    config::ContrastiveConfig,
    encoders::Encoders,
    loss::{in_batch_loss, in_batch_scores, mask_duplicates, ranks_first},
    micro_batch::MicroBatch,
};
use crate::{data::dpr::DprExample, error::Result};

/// The texts of a step.
#[derive(Clone, Debug)]
pub struct ContrastiveBatch {
    /// The questions.
    pub questions: Vec<MicroBatch>,
    /// The questions' own passages in their order, then the hard negatives of all.
    pub passages: Vec<MicroBatch>,
    /// Equal numbers where passages are the same, `[passages]`.
    pub identities: Tensor<1, Int>,
}

/// How the questions of a batch find their own passages among those of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InBatch {
    /// Questions.
    pub questions: usize,
    /// Mean of -log P of their own passages, in nats.
    pub loss: f64,
    /// Share of the questions whose own passage scores highest.
    pub accuracy: f64,
}

impl ContrastiveBatch {
    /// Tokenizes the questions and passages of `examples`, and lays them out on `device`. The seeds of
    /// the micro-batches' dropout masks follow from `seed`.
    ///
    /// # Errors
    /// [`rag_retrieve::EncoderError::QuestionTooLong`]; those of the tokenizers.
    pub fn new(
        encoders: &Encoders,
        examples: &[&DprExample],
        config: &ContrastiveConfig,
        device: &Device,
        seed: u64,
    ) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut micro_batches = |texts: &[Encoding], pad| {
            texts
                .chunks(config.micro_batch_size)
                .map(|texts| MicroBatch::new(texts, pad, device, random.random()))
                .collect::<Vec<_>>()
        };
        let [question, context] = [encoders.question(), encoders.context()];
        let questions: Vec<&str> = examples.iter().map(|one| one.question.as_str()).collect();
        let questions = question.tokenize_questions(&questions)?;
        let passages = passages(examples, config.hard_negatives);
        let identities = identities(&passages);
        let passages: Vec<Passage> = passages.into_iter().cloned().collect();
        let passages = context.tokenize_passages(&passages)?;
        Ok(Self {
            questions: micro_batches(&questions, question.config().bert.pad_token_id),
            passages: micro_batches(&passages, context.config().bert.pad_token_id),
            identities: Tensor::from_data(identities.as_slice(), device),
        })
    }

    /// The mean loss of the vectors of questions `[batch, dimension]` and passages
    /// `[passages, dimension]`, in nats, as a tensor and as a number.
    pub fn loss(
        &self,
        questions: Tensor<2>,
        passages: Tensor<2>,
        temperature: f64,
    ) -> (Tensor<1>, InBatch) {
        let scores = in_batch_scores(questions, passages, temperature);
        let scores = mask_duplicates(scores, self.identities.clone());
        let [questions, _] = scores.dims();
        let first: i64 = ranks_first(scores.clone()).int().sum().into_scalar();
        let loss = in_batch_loss(scores).mean();
        let found = InBatch {
            questions,
            loss: loss.clone().into_scalar::<f32>().into(),
            accuracy: first as f64 / questions as f64,
        };
        (loss, found)
    }
}

impl InBatch {
    /// The two batches as one.
    pub(super) fn and(self, other: Self) -> Self {
        let questions = self.questions + other.questions;
        let mean = |one: f64, two: f64| {
            (one * self.questions as f64 + two * other.questions as f64) / questions.max(1) as f64
        };
        Self {
            questions,
            loss: mean(self.loss, other.loss),
            accuracy: mean(self.accuracy, other.accuracy),
        }
    }
}

/// Whether there is a passage to tell a question's own from.
pub(super) fn has_negative(examples: &[&DprExample], hard_negatives: usize) -> bool {
    let identities = identities(&passages(examples, hard_negatives));
    identities.iter().any(|&identity| identity > 0)
}

/// The own passages of all examples, then the first `hard_negatives` of each.
fn passages<'a>(examples: &[&'a DprExample], hard_negatives: usize) -> Vec<&'a Passage> {
    let own = examples.iter().map(|example| &example.positives[0]);
    let hard = examples
        .iter()
        .flat_map(|example| example.hard_negatives.iter().take(hard_negatives));
    own.chain(hard).collect()
}

/// A number for each passage, from 0, the same where passages have the same id; without ids, where
/// they have the same title and text.
fn identities(passages: &[&Passage]) -> Vec<i64> {
    let mut known = HashMap::new();
    passages
        .iter()
        .map(|passage| {
            let key = if passage.id.is_empty() {
                ["", &passage.title, &passage.text]
            } else {
                [passage.id.as_str(), "", ""]
            };
            let next = known.len() as i64;
            *known.entry(key).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_passages_apart_and_texts_where_there_are_none() {
        let passages = [
            Passage::new("1", "Rain", "It rained."),
            Passage::new("2", "Rain", "It rained."),
            Passage::new("", "雨", "下雨了。"),
            Passage::new("1", "", "Cut elsewhere."),
            Passage::new("", "雨", "下雨了。"),
            Passage::new("", "雨", "雨停了。"),
        ];
        let passages: Vec<_> = passages.iter().collect();
        assert_eq!(identities(&passages), [0, 1, 2, 0, 2, 3]);
    }

    #[test]
    fn batches_weigh_by_their_questions() {
        let batch = |questions, loss, accuracy| InBatch {
            questions,
            loss,
            accuracy,
        };
        let both = batch(1, 3.0, 1.0).and(batch(3, 1.0, 0.0));
        assert_eq!(both, batch(4, 1.5, 0.25));
        assert_eq!(InBatch::default().and(both), both);
    }
}
