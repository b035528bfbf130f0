use burn::tensor::{Device, Int, Tensor, Tolerance, activation};

use super::{
    assert_all_close, assert_is_equation, cpu, error, in_f64, linear::product, on_each_processor,
    scattered, with_gradients,
};
use crate::{LOGITS_AT_ONCE, gelu, linear, log_mixture, log_softmax, softmax, word_log_probs};

fn log_sum_exp(x: &[f64]) -> f64 {
    x.iter().map(|x| x.exp()).sum::<f64>().ln()
}

#[test]
fn words_are_their_equation() {
    for [rows, d_input, vocabulary, asked] in [[1, 1, 1, 1], [7, 5, 30, 3], [33, 32, 40, 2]] {
        let shapes = [
            [1, 1, rows, d_input],
            [1, 1, vocabulary, d_input],
            [1, 1, 1, vocabulary],
        ];
        let words: Vec<_> = (0..rows * asked).map(|i| i * 7919 % vocabulary).collect();
        let ids = Tensor::<1, Int>::from_data(&*words, &cpu()).reshape([rows, asked]);
        assert_is_equation(
            shapes.map(|shape| scattered(shape) * 0.5),
            1e-5,
            |[states, weight, bias]| {
                let [states, weight, bias] =
                    [states, weight, bias].map(|x| x.squeeze_dims::<2>(&[0, 1]));
                let bias = bias.squeeze_dim::<1>(0);
                let found = word_log_probs(&states, &weight, Some(&bias), &ids);
                found.unwrap().unsqueeze()
            },
            |[states, weight, bias]| {
                let logits = product(states, weight, bias, d_input);
                let rows = logits.chunks(vocabulary).zip(words.chunks(asked));
                rows.flat_map(|(logits, words)| {
                    let total = log_sum_exp(logits);
                    words.iter().map(move |&word| logits[word] - total)
                })
                .collect()
            },
        );
    }
}

#[test]
fn a_mixture_is_its_equation() {
    for [searches, contexts, hypotheses, words] in [[1, 1, 1, 3], [2, 3, 4, 70]] {
        let logits = scattered([searches, contexts, hypotheses, words]) * 5.0;
        let weights = activation::log_softmax(scattered([searches, contexts]), 1);
        let [l, w] = [in_f64(&logits), in_f64(&weights)];
        let mut expected = Vec::new();
        for row in 0..searches * hypotheses {
            let (search, hypothesis) = (row / hypotheses, row % hypotheses);
            for word in 0..words {
                let parts = (0..contexts).map(|context| {
                    let row = (search * contexts + context) * hypotheses + hypothesis;
                    let logits = &l[row * words..][..words];
                    w[search * contexts + context] + logits[word] - log_sum_exp(logits)
                });
                expected.push(log_sum_exp(&parts.collect::<Vec<_>>()));
            }
        }
        on_each_processor(|processor| {
            let found = log_mixture(&logits, &weights).unwrap();
            let error = error(&in_f64(&found), &expected);
            assert!(error <= 2e-6, "{processor}: {error}");
        });
    }
}

#[test]
fn a_mixture_is_the_sum_of_its_parts() {
    for shape in [[1, 1, 1, 3], [2, 3, 4, 70], [1, 5, 2, 9000]] {
        let [searches, contexts, _, _] = shape;
        let logits = scattered(shape) * 20.0;
        let weights = activation::log_softmax(scattered([searches, contexts]) * 5.0, 1);
        let found = log_mixture(&logits, &weights).unwrap();
        let parts =
            activation::log_softmax(logits, 3) + weights.reshape([searches, contexts, 1, 1]);
        let expected = parts.exp().sum_dim(1).log().squeeze_dim::<3>(1);
        let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-5);
        found
            .into_data()
            .assert_approx_eq(&expected.into_data(), tolerance);
    }
    let nothing = Tensor::<4>::full([1, 2, 1, 3], f32::NAN, &cpu().inner());
    let mixed = log_mixture(&nothing, &scattered([1, 2])).unwrap();
    assert!(mixed.is_nan().all().into_scalar::<bool>());
}

/// Numbers without all their digits are slow.
#[test]
fn gradients_too_small_to_count_are_zero() {
    for function in [gelu, softmax, log_softmax] {
        let x = scattered([4, 50]).autodiff().require_grad();
        let y = function(x.clone());
        let gradients = (y * scattered([4, 50]).autodiff() * 1e-36).sum().backward();
        let dx: Vec<f32> = x
            .grad(&gradients)
            .unwrap()
            .into_data()
            .try_to_vec()
            .unwrap();
        assert!(dx.iter().all(|&dx| dx == 0.0), "{dx:?}");
    }
    let states = scattered([4, 5]).autodiff().require_grad();
    let words = Tensor::<2, Int>::zeros([4, 1], &Device::flex()).autodiff();
    let found = word_log_probs(&states, &scattered([7, 5]).autodiff(), None, &words);
    let gradients = (found.unwrap() * 1e-36).sum().backward();
    let dx = states.grad(&gradients).unwrap().into_data();
    assert!(dx.iter::<f32>().all(|dx| dx == 0.0), "{dx}");
}

#[test]
fn words_are_those_of_a_log_softmax_with_their_gradients() {
    for [rows, d_input, vocabulary, asked] in [
        [1, 1, 1, 1],
        [7, 5, 30, 3],
        [LOGITS_AT_ONCE[0] + 3, 4, 9, 2],
        [5, 3, 2 * LOGITS_AT_ONCE[1] + 5, 2],
    ] {
        let shapes = [
            [1, 1, rows, d_input],
            [1, 1, vocabulary, d_input],
            [1, 1, 1, vocabulary],
        ];
        let inputs = shapes.map(scattered);
        let ids: Vec<_> = (0..rows * asked).map(|i| i * 7919 % vocabulary).collect();
        let ids = Tensor::<1, Int>::from_data(&*ids, &Device::flex());
        let ids = ids.reshape([rows, asked]);
        let found = |[states, weight, bias]: [Tensor<4>; 3], biased: bool, ours: bool| {
            let [states, weight, bias] =
                [states, weight, bias].map(|x| x.squeeze_dims::<2>(&[0, 1]));
            let bias = biased.then(|| bias.squeeze_dim::<1>(0));
            let ids = match states.device().is_autodiff() {
                true => ids.clone().autodiff(),
                false => ids.clone(),
            };
            let found = match ours {
                true => word_log_probs(&states, &weight, bias.as_ref(), &ids).unwrap(),
                false => {
                    log_softmax(linear(&states, &weight, bias.as_ref()).unwrap()).gather(1, ids)
                }
            };
            found.unsqueeze()
        };
        for tracked in 1..1 << 3 {
            let of =
                |ours| with_gradients(inputs.clone(), tracked, |inputs| found(inputs, true, ours));
            assert_all_close(of(true), &of(false));
        }
        let [ours, burns] = [true, false].map(|ours| found(inputs.clone(), false, ours));
        assert_all_close(vec![ours.into_data()], &[burns.into_data()]);
    }
}

#[test]
fn words_that_are_ruled_out_count_for_nothing() {
    let device = Device::flex();
    let possible = LOGITS_AT_ONCE[1];
    let states = scattered([3, 2]);
    let weight: Tensor<2> = scattered([possible + 1, 2]);
    let never = Tensor::<1>::from_floats([f32::NEG_INFINITY], &device);
    let bias = Tensor::cat(vec![Tensor::zeros([possible], &device), never], 0);
    let words = Tensor::<2, Int>::from_ints([[0, 5], [1, 6], [2, 7]], &device);
    let found = |weight: &Tensor<2>, bias: Option<&Tensor<1>>| {
        let found = word_log_probs(&states, weight, bias, &words).unwrap();
        found.into_data()
    };
    let without = weight.clone().narrow(0, 0, possible);
    assert_all_close(vec![found(&weight, Some(&bias))], &[found(&without, None)]);
}
