//! The weights of P(z|x) without a generator.

use burn::tensor::{Device, Tensor, TensorData};
use rag_core::{
    device,
    marginal::{log_prior, log_sum_exp},
    nn::Precision,
};
use rag_retrieve::{Fusion, PriorWeights, Relevance, Retriever};

use crate::{
    data::pairs::QuestionAnswer,
    error::{Error, Result},
    objective::prior::Prior,
    run::{
        optimizer::{Accumulation, Optimizer, OptimizerKind},
        scaler::LossScaler,
        schedule::{Decay, Schedule},
    },
};

/// Passages of each question that the right ones are told from.
const CANDIDATES: usize = 50;
/// Steps over all questions at once.
const STEPS: usize = 300;
/// The highest learning rate, of weights that count standard deviations.
const LEARNING_RATE: f64 = 0.1;
/// Questions that are embedded at once.
const QUESTIONS: usize = 256;

/// The weights under which the passages that answer the questions
/// ([`QuestionAnswer::is_answered_by`]) have the largest P(z|x): those that minimise the mean of
///
/// ```text
/// -log Σ_{z answers x} P(z|x)
/// ```
///
/// over the 50 best passages of each question by all that `retriever` finds with. It is the marginal
/// likelihood of a generator that answers from the right passages only. Questions without a right
/// passage among the 50, or without a wrong one, teach nothing and are passed over.
///
/// # Errors
/// [`Error::NoExamples`] where no question teaches anything; those of [`Retriever::retrieve`].
pub fn fit_prior(retriever: &Retriever, pairs: &[QuestionAnswer]) -> Result<PriorWeights> {
    let candidates = CANDIDATES.min(retriever.searched());
    let retriever = (retriever.clone().with_candidates(candidates))
        .without_prior()
        .with_fusion(Fusion::Ranks)
        .top_k(candidates)?;
    let (mut relevances, mut right) = (Vec::new(), Vec::new());
    for pairs in pairs.chunks(QUESTIONS) {
        let questions: Vec<&str> = pairs.iter().map(|pair| pair.question.as_str()).collect();
        for (pair, found) in pairs.iter().zip(retriever.retrieve(&questions)?) {
            let answers: Vec<bool> = (found.iter())
                .map(|found| pair.is_answered_by(&found.passage))
                .collect();
            if answers.contains(&true) && answers.contains(&false) {
                relevances.extend(found.iter().map(|found| found.relevance));
                right.extend(answers);
            }
        }
    }
    if relevances.is_empty() {
        return Err(Error::NoExamples);
    }
    let encoder = retriever.question_encoder().text_encoder();
    // An embedder of the user's own has no device. Burn's default may be a GPU that is not there.
    let cpu = || device("cpu").unwrap_or_default();
    let device = encoder.map_or_else(cpu, |encoder| encoder.encoder().bert.device());
    maximum_likelihood(&relevances, &right, candidates, &device.autodiff())
}

/// Of `relevances` `[questions · candidates]`, and which of them are right.
fn maximum_likelihood(
    relevances: &[Relevance],
    right: &[bool],
    candidates: usize,
    device: &Device,
) -> Result<PriorWeights> {
    let signals: Vec<[f32; 3]> = relevances.iter().map(|passage| passage.signals()).collect();
    // In standard deviations one learning rate fits all signals.
    let scale = [0, 1, 2].map(|which| deviation(signals.iter().map(move |all| all[which])));
    let scaled = |which: usize| {
        let values = signals
            .iter()
            .map(|all| all[which] / scale[which].unwrap_or(1.0));
        matrix(values.collect(), candidates, device)
    };
    let wrong = |&right: &bool| if right { 0.0 } else { f32::NEG_INFINITY };
    let wrong = matrix(right.iter().map(wrong).collect(), candidates, device);
    let (dense, others) = (scaled(0), Tensor::stack(vec![scaled(1), scaled(2)], 2));

    let start = scale.map(|scale| if scale.is_some() { 1.0 } else { 0.0 });
    let mut prior = Prior::new(start.into(), device);
    let mut optimizer = Optimizer::new(
        OptimizerKind::AdamW.init(0.0),
        f64::INFINITY,
        LossScaler::new(Precision::F32),
    );
    let schedule = Schedule {
        peak: LEARNING_RATE,
        warmup: 0,
        steps: STEPS,
        decay: Decay::Linear,
    };
    for step in 0..STEPS {
        let log_prior = log_prior(prior.forward(dense.clone(), others.clone()));
        let loss = -log_sum_exp(log_prior + wrong.clone(), 1).mean();
        let mut gradients = Accumulation::default();
        optimizer.accumulate(&prior, loss, &mut gradients);
        (prior, _) = optimizer.step(prior, gradients, schedule.rate(step));
    }
    let fitted: [f32; 3] = prior.weights()?.into();
    Ok([0, 1, 2]
        .map(|which| fitted[which] / scale[which].unwrap_or(1.0))
        .into())
}

/// The standard deviation, unless all are the same.
fn deviation(values: impl Iterator<Item = f32> + Clone) -> Option<f32> {
    let count = values.clone().count() as f32;
    let mean = values.clone().sum::<f32>() / count;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f32>() / count;
    (variance > 0.0).then(|| variance.sqrt())
}

fn matrix(values: Vec<f32>, columns: usize, device: &Device) -> Tensor<2> {
    let rows = values.len() / columns;
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likelihood(weights: PriorWeights, relevances: &[Relevance], right: &[bool]) -> f64 {
        let questions = relevances.chunks(2).zip(right.chunks(2));
        questions
            .map(|(passages, right)| {
                let scores = [0, 1].map(|z| f64::from(weights.score(passages[z])).exp());
                let right: f64 = (0..2).filter(|&z| right[z]).map(|z| scores[z]).sum();
                (right / (scores[0] + scores[1])).ln()
            })
            .sum()
    }

    #[test]
    fn no_weights_are_likelier() {
        let device = device("cpu").unwrap().autodiff();
        let passage = |dense, lexical| Relevance {
            dense,
            lexical,
            rerank: 0.0,
        };
        // Neither signal tells the right passage, nor do both together.
        let relevances = [
            (passage(0.8, 3.0), passage(0.6, 9.0)),
            (passage(0.7, 4.0), passage(0.5, 4.5)),
            (passage(0.3, 12.0), passage(0.4, 2.0)),
            (passage(0.9, 1.0), passage(0.7, 8.0)),
            (passage(0.2, 7.0), passage(0.5, 6.0)),
            (passage(0.4, 3.0), passage(0.6, 5.0)),
        ];
        let relevances: Vec<Relevance> = relevances.into_iter().flat_map(<[_; 2]>::from).collect();
        let right = [true, true, true, false, false, true]
            .map(|first| [first, !first])
            .concat();
        let fitted = maximum_likelihood(&relevances, &right, 2, &device).unwrap();
        assert_eq!(fitted.rerank, 0.0);
        let best = likelihood(fitted, &relevances, &right);
        for (dense, lexical) in [(0.5, 0.0), (-0.5, 0.0), (0.0, 0.1), (0.0, -0.1)] {
            let moved = PriorWeights {
                dense: fitted.dense + dense,
                lexical: fitted.lexical + lexical,
                ..fitted
            };
            assert!(likelihood(moved, &relevances, &right) < best, "{fitted:?}");
        }
    }
}
