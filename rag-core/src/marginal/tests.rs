use burn::tensor::{Device, TensorData};

use super::*;

const BATCH: usize = 2;
const DOCS: usize = 3;
const LENGTH: usize = 4;
const VOCABULARY: usize = 5;

const MODELS: [RagModel; 2] = [RagModel::Sequence, RagModel::Token];

/// A batch of two answers, of four tokens and of two, as plain numbers and as tensors.
struct Example {
    /// P(z|x) of each question.
    prior: Vec<Vec<f64>>,
    /// P(v|x,z,y_<i) as `[answer][document][position][token]`, at padding too.
    probs: Vec<Vec<Vec<Vec<f64>>>>,
    answers: [Vec<usize>; BATCH],
    device: Device,
}

impl Example {
    fn new() -> Self {
        let mut state = 1_u64;
        let mut distribution = |size: usize| {
            let weights: Vec<f64> = (0..size)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (4.0 * (state >> 40) as f64 / (1_u64 << 24) as f64).exp()
                })
                .collect();
            let total: f64 = weights.iter().sum();
            weights
                .into_iter()
                .map(|weight| weight / total)
                .collect::<Vec<_>>()
        };
        let prior = (0..BATCH).map(|_| distribution(DOCS)).collect();
        let probs = (0..BATCH)
            .map(|_| {
                (0..DOCS)
                    .map(|_| (0..LENGTH).map(|_| distribution(VOCABULARY)).collect())
                    .collect()
            })
            .collect();
        Self {
            prior,
            probs,
            answers: [vec![3, 1, 4, 2], vec![0, 2]],
            device: crate::device("cpu").unwrap(),
        }
    }

    fn log_prior(&self) -> Tensor<2> {
        let numbers: Vec<f32> = self.prior.iter().flatten().map(|p| p.ln() as f32).collect();
        Tensor::from_data(TensorData::new(numbers, [BATCH, DOCS]), &self.device)
    }

    fn log_probs(&self) -> Tensor<4> {
        let numbers = self.probs.iter().flatten().flatten().flatten();
        let numbers: Vec<f32> = numbers.map(|p| p.ln() as f32).collect();
        let shape = [BATCH, DOCS, LENGTH, VOCABULARY];
        Tensor::from_data(TensorData::new(numbers, shape), &self.device)
    }

    /// Padding holds `pad`.
    fn targets(&self, pad: i64) -> Targets {
        let at = |answer: &[usize], i: usize| answer.get(i).map_or(pad, |&id| id as i64);
        let tensor = |of: &dyn Fn(&[usize], usize) -> i64| {
            let numbers = self
                .answers
                .iter()
                .flat_map(|answer| (0..LENGTH).map(|i| of(answer, i)));
            let data = TensorData::new(numbers.collect::<Vec<_>>(), [BATCH, LENGTH]);
            Tensor::<2, Int>::from_data(data, &self.device)
        };
        Targets {
            ids: tensor(&at),
            mask: tensor(&|answer, i| i64::from(i < answer.len())),
            exclude_bos_score: false,
        }
    }

    fn token_log_probs(&self) -> Tensor<3> {
        self.targets(0).token_log_probs(&self.log_probs())
    }

    /// P(y_i|x,z,y_<i).
    fn token(&self, b: usize, z: usize, i: usize) -> f64 {
        self.probs[b][z][i][self.answers[b][i]]
    }

    /// Π_i P(y_i|x,z,y_<i) of the first `length` tokens.
    fn product(&self, b: usize, z: usize, length: usize) -> f64 {
        (0..length).map(|i| self.token(b, z, i)).product()
    }

    fn likelihood(&self, model: RagModel, b: usize) -> f64 {
        let length = self.answers[b].len();
        let prior = &self.prior[b];
        let over_documents =
            |term: &dyn Fn(usize) -> f64| (0..DOCS).map(|z| prior[z] * term(z)).sum::<f64>();
        match model {
            RagModel::Sequence => over_documents(&|z| self.product(b, z, length)),
            RagModel::Token => (0..length)
                .map(|i| over_documents(&|z| self.token(b, z, i)))
                .product(),
        }
    }

    /// P(z|x), or P(z|x,y_<i) by Bayes.
    fn weight(&self, model: RagModel, b: usize, z: usize, i: usize) -> f64 {
        match model {
            RagModel::Token => self.prior[b][z],
            RagModel::Sequence => {
                let joint = |z: usize| self.prior[b][z] * self.product(b, z, i);
                joint(z) / (0..DOCS).map(joint).sum::<f64>()
            }
        }
    }

    /// P(v|x,y_<i).
    fn predictive(&self, model: RagModel, b: usize, i: usize, v: usize) -> f64 {
        (0..DOCS)
            .map(|z| self.weight(model, b, z, i) * self.probs[b][z][i][v])
            .sum()
    }
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn close(found: f64, expected: f64) {
    let difference = (found - expected).abs();
    assert!(
        difference < 1e-5 * expected.abs().max(1.0),
        "expected {expected}, found {found}"
    );
}

#[test]
fn likelihoods_are_the_sums_over_documents() {
    let example = Example::new();
    for model in MODELS {
        let found = numbers(log_likelihood(
            model,
            example.log_prior(),
            example.token_log_probs(),
        ));
        assert_eq!(found.len(), BATCH);
        for (b, found) in found.into_iter().enumerate() {
            close(found, example.likelihood(model, b).ln());
        }
    }
    let [sequence, token] = MODELS.map(|model| example.likelihood(model, 0));
    assert!(
        (sequence / token).ln().abs() > 0.01,
        "the example tells the models apart"
    );
}

#[test]
fn a_log_prior_is_the_softmax_of_scores() {
    let device = crate::device("cpu").unwrap();
    let scores = Tensor::from_floats([[1.0, 2.0, -1.0], [900.0, 901.0, -900.0]], &device);
    let found = numbers(log_prior(scores));
    let total = (1_f64.exp() + 2_f64.exp() + (-1_f64).exp()).ln();
    close(found[0], 1.0 - total);
    close(found[2], -1.0 - total);
    let total = (1.0 + 1_f64.exp()).ln();
    close(found[3], -total);
    close(found[4], 1.0 - total);
    close(found[5], -1800.0 - total);
}

#[test]
fn log_sum_exp_holds_at_extremes() {
    let device = crate::device("cpu").unwrap();
    let terms = Tensor::<2>::from_floats([[1e4, 1e4], [-1e4, -1e4], [0.0, -1e4]], &device);
    let found = numbers(log_sum_exp(terms, 1));
    let two = std::f64::consts::LN_2;
    for (found, expected) in found.into_iter().zip([1e4 + two, -1e4 + two, 0.0]) {
        close(found, expected);
    }
}

#[test]
fn the_document_posterior_is_bayes_rule() {
    let example = Example::new();
    let found = document_log_posterior(example.log_prior(), example.token_log_probs()).exp();
    for (at, found) in numbers(found).into_iter().enumerate() {
        let (b, z) = (at / DOCS, at % DOCS);
        let length = example.answers[b].len();
        let joint = example.prior[b][z] * example.product(b, z, length);
        close(found, joint / example.likelihood(RagModel::Sequence, b));
    }
}

#[test]
fn token_responsibilities_are_bayes_rule_at_each_token() {
    let example = Example::new();
    let found = token_log_responsibilities(example.log_prior(), example.token_log_probs()).exp();
    for (at, found) in numbers(found).into_iter().enumerate() {
        let (b, z, i) = (at / LENGTH / DOCS, at / LENGTH % DOCS, at % LENGTH);
        let expected = if i < example.answers[b].len() {
            let joint = |z: usize| example.prior[b][z] * example.token(b, z, i);
            joint(z) / (0..DOCS).map(joint).sum::<f64>()
        } else {
            example.prior[b][z]
        };
        close(found, expected);
    }
}

#[test]
fn the_mixtures_predictions_multiply_to_the_likelihood() {
    let example = Example::new();
    for model in MODELS {
        let tokens = example.token_log_probs();
        let weights = mixture_log_weights(model, example.log_prior(), tokens.clone());
        for (at, weight) in numbers(weights.clone().exp()).into_iter().enumerate() {
            let (b, z, i) = (at / LENGTH / DOCS, at / LENGTH % DOCS, at % LENGTH);
            if i < example.answers[b].len() {
                close(weight, example.weight(model, b, z, i));
            }
        }
        let predicted = log_sum_exp(weights + tokens, 1).squeeze_dim::<2>(1);
        let product = numbers(predicted.sum_dim(1));
        for (b, product) in product.into_iter().enumerate() {
            close(product, example.likelihood(model, b).ln());
        }
    }
}

#[test]
fn the_paper_is_smoothed_against_the_mixture() {
    let example = Example::new();
    for model in MODELS {
        for smoothing in [0.0, 0.1, 0.7, 1.0] {
            let found = numbers(negative_log_likelihood(
                model,
                Compat::Paper,
                example.log_prior(),
                example.log_probs(),
                &example.targets(0),
                smoothing,
            ));
            for (b, found) in found.into_iter().enumerate() {
                let uniform: f64 = (0..example.answers[b].len())
                    .flat_map(|i| (0..VOCABULARY).map(move |v| (i, v)))
                    .map(|(i, v)| -example.predictive(model, b, i, v).ln())
                    .sum();
                let likelihood = -example.likelihood(model, b).ln();
                let expected =
                    (1.0 - smoothing) * likelihood + smoothing / VOCABULARY as f64 * uniform;
                close(found, expected);
            }
        }
    }
}

#[test]
fn padding_counts_for_nothing() {
    let mut example = Example::new();
    let losses = |example: &Example, pad: i64| {
        let all = MODELS.into_iter().flat_map(|model| {
            [Compat::Paper, Compat::HuggingFace]
                .into_iter()
                .flat_map(move |compat| {
                    [0.0, 0.3].map(|smoothing| {
                        numbers(negative_log_likelihood(
                            model,
                            compat,
                            example.log_prior(),
                            example.log_probs(),
                            &example.targets(pad),
                            smoothing,
                        ))
                    })
                })
        });
        all.flatten().collect::<Vec<_>>()
    };
    let expected = losses(&example, 0);
    for document in &mut example.probs[1] {
        document[2..].fill(vec![0.96, 0.01, 0.01, 0.01, 0.01]);
    }
    for pad in [0, 4] {
        for (found, expected) in losses(&example, pad).into_iter().zip(&expected) {
            close(found, *expected);
        }
    }
    let tokens = example.targets(3).token_log_probs(&example.log_probs());
    let padding = numbers(tokens.narrow(0, 1, 1).narrow(2, 2, 2));
    assert_eq!(padding, [0.0; DOCS * 2]);
}

#[test]
fn a_document_of_prior_zero_counts_for_nothing() {
    let mut example = Example::new();
    for prior in &mut example.prior {
        let rest = 1.0 - prior[1];
        prior[1] = 0.0;
        prior.iter_mut().for_each(|p| *p /= rest);
    }
    for model in MODELS {
        for smoothing in [0.0, 0.3] {
            let loss = |example: &Example| {
                numbers(negative_log_likelihood(
                    model,
                    Compat::Paper,
                    example.log_prior(),
                    example.log_probs(),
                    &example.targets(0),
                    smoothing,
                ))
            };
            let found = loss(&example);
            let mut other = Example::new();
            other.prior.clone_from(&example.prior);
            for answer in &mut other.probs {
                answer[1] = vec![vec![0.2; VOCABULARY]; LENGTH];
            }
            for (b, (found, other)) in found.into_iter().zip(loss(&other)).enumerate() {
                close(found, other);
                if smoothing == 0.0 {
                    close(found, -example.likelihood(model, b).ln());
                }
            }
        }
    }
    let posterior = document_log_posterior(example.log_prior(), example.token_log_probs());
    assert_eq!(numbers(posterior.exp().narrow(1, 1, 1)), [0.0; BATCH]);
}

#[test]
fn transformers_loses_the_prior_of_one_token() {
    let mut example = Example::new();
    example.answers = [vec![3], vec![1]];
    let loss = |compat| {
        numbers(negative_log_likelihood(
            RagModel::Sequence,
            compat,
            example.log_prior(),
            example.log_probs(),
            &example.targets(0),
            0.0,
        ))
    };
    for (b, (paper, theirs)) in loss(Compat::Paper)
        .into_iter()
        .zip(loss(Compat::HuggingFace))
        .enumerate()
    {
        close(paper, -example.likelihood(RagModel::Sequence, b).ln());
        let without: f64 = (0..DOCS).map(|z| example.token(b, z, 0)).sum();
        close(theirs, -without.ln());
    }
}

#[test]
fn conventions_agree_on_longer_answers() {
    let example = Example::new();
    for model in MODELS {
        let [paper, theirs] = [Compat::Paper, Compat::HuggingFace].map(|compat| {
            numbers(negative_log_likelihood(
                model,
                compat,
                example.log_prior(),
                example.log_probs(),
                &example.targets(0),
                0.0,
            ))
        });
        for (paper, theirs) in paper.into_iter().zip(theirs) {
            close(paper, theirs);
        }
    }
}
