//! A retriever from passages alone: the inverse cloze task (Lee, Chang and Toutanova 2019,
//! arXiv 1906.00300), with random words of a passage in place of a sentence.

use burn::module::Module;
use rag_core::{Encoding, Passage, TokenBatch, nn::Precision};
use rag_retrieve::TextEncoder;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{
    error::Result,
    retriever::contrastive::loss::{in_batch_loss, in_batch_scores},
    run::{
        optimizer::{Accumulation, Optimizer, OptimizerKind},
        scaler::LossScaler,
        schedule::{Decay, Schedule},
    },
    watch::progress::Bar,
};

/// How long and how an encoder learns from passages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InverseCloze {
    /// Steps.
    pub steps: usize,
    /// Passages of a step; each is told from the others.
    pub batch_size: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Most words of a passage that stand for a question.
    pub words: usize,
    /// Seed of what is drawn.
    pub seed: u64,
}

impl Default for InverseCloze {
    fn default() -> Self {
        Self {
            steps: 120,
            batch_size: 32,
            learning_rate: 1e-3,
            words: 8,
            seed: 0,
        }
    }
}

/// Trains one encoder for both sides: a few words of a passage, drawn at random, must find the
/// passage among the others of the batch. Shows a progress bar with the loss.
///
/// # Errors
/// Those of the tokenizer.
pub fn pretrain(
    encoder: TextEncoder,
    passages: &[Passage],
    settings: InverseCloze,
) -> Result<TextEncoder> {
    let texts = encoder.tokenize_passages(passages)?;
    let device = encoder.encoder().bert.device().autodiff();
    let mut random = StdRng::seed_from_u64(settings.seed);
    let mut optimizer = Optimizer::new(
        OptimizerKind::AdamW.init(0.01),
        1.0,
        LossScaler::new(Precision::F32),
    );
    let schedule = Schedule {
        peak: settings.learning_rate,
        warmup: settings.steps / 10,
        steps: settings.steps,
        decay: Decay::Linear,
    };
    let mut model = encoder.encoder().clone().train();
    let mut order: Vec<usize> = (0..texts.len()).collect();
    let pad = encoder.config().bert.pad_token_id;
    let progress = Bar::new(0, settings.steps);
    for step in 0..settings.steps {
        order.shuffle(&mut random);
        let chosen: Vec<&Encoding> = order
            .iter()
            .take(settings.batch_size)
            .map(|&i| &texts[i])
            .collect();
        let questions: Vec<_> = chosen
            .iter()
            .map(|text| words(&text.ids, settings.words, &mut random))
            .collect();
        let passages: Vec<_> = chosen.iter().map(|text| &text.ids).collect();
        let embed = |rows: TokenBatch| model.forward(&rows, None, Precision::F32);
        let scores = in_batch_scores(
            embed(TokenBatch::new(&questions, pad, &device)),
            embed(TokenBatch::new(&passages, pad, &device)),
            1.0,
        );
        let loss = in_batch_loss(scores).mean();
        let nats: f32 = loss.clone().into_scalar();
        progress.step(format!("inverse cloze  {nats:.3} nats/question"));
        let mut gradients = Accumulation::default();
        optimizer.accumulate(&model, loss, &mut gradients);
        (model, _) = optimizer.step(model, gradients, schedule.rate(step));
    }
    Ok(encoder.with_encoder(model.valid()))
}

/// One to `most` tokens of a text in their order, between its first and last special token.
fn words(ids: &[u32], most: usize, random: &mut StdRng) -> Vec<u32> {
    let inner = &ids[1..ids.len() - 1];
    let count = random.random_range(1..=most).min(inner.len());
    let mut places = rand::seq::index::sample(random, inner.len(), count).into_vec();
    places.sort_unstable();
    let drawn = places.into_iter().map(|place| inner[place]);
    ids[..1]
        .iter()
        .copied()
        .chain(drawn)
        .chain(ids[ids.len() - 1..].iter().copied())
        .collect()
}
