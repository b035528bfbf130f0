use burn::tensor::{Device, Tensor, Tolerance, activation};

use super::{
    RANDOM, assert_all_close, assert_is_equation, error, in_f64, on_each_processor, scattered,
    with_gradients,
};
use crate::{Attention, Mask, attention, dropout};

fn inputs_of<'a>(
    queries: &'a Tensor<3>,
    [keys, values]: [&'a Tensor<4>; 2],
    bias: Option<&'a Tensor<4>>,
) -> Attention<'a> {
    Attention {
        queries,
        keys,
        values,
        bias,
        scale: 1.0,
        dropout: 0.0,
        rounded: false,
    }
}

fn attend(
    queries: &Tensor<3>,
    memory: [&Tensor<4>; 2],
    bias: Option<&Tensor<4>>,
    scale: f64,
    rounded: bool,
) -> Tensor<3> {
    let inputs = Attention {
        scale,
        rounded,
        ..inputs_of(queries, memory, bias)
    };
    attention(inputs).unwrap()
}

/// Of queries `[rows, length, heads · d_head]`, keys and values `[rows, memory length, heads · d_head]` and a bias `[rows,
/// memory length]`.
fn equation(
    [queries, keys, values, bias]: [&[f64]; 4],
    [rows, length, heads, memory, d_head]: [usize; 5],
    scale: f64,
) -> Vec<f64> {
    let inner = heads * d_head;
    let mut y = Vec::new();
    for row in 0..rows {
        for query in 0..length {
            for head in 0..heads {
                let of = |x: &[f64], i: usize| x[i * inner + head * d_head..][..d_head].to_vec();
                let query = of(queries, row * length + query);
                let weights: Vec<f64> = (0..memory)
                    .map(|j| {
                        let key = of(keys, row * memory + j);
                        let score: f64 = query.iter().zip(&key).map(|(x, y)| x * y).sum();
                        (score * scale + bias[row * memory + j]).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                let mut sum = vec![0.0; d_head];
                for (j, weight) in weights.iter().enumerate() {
                    let value = of(values, row * memory + j);
                    sum.iter_mut()
                        .zip(value)
                        .for_each(|(sum, value)| *sum += weight / total * value);
                }
                y.extend(sum);
            }
        }
    }
    y
}

/// With gradients, each processor's products; with sides from 32 on, those of matrix units.
#[test]
fn attention_is_its_equation() {
    for shape in [[1, 1, 1, 1, 1], [2, 3, 2, 5, 4], [1, 33, 1, 34, 32]] {
        let [rows, length, heads, memory, d_head] = shape;
        let inputs = [
            [1, rows, length, heads * d_head],
            [1, rows, memory, heads * d_head],
            [1, rows, memory, heads * d_head],
            [1, 1, rows, memory],
        ];
        assert_is_equation(
            inputs.map(scattered),
            5e-6,
            |[queries, keys, values, bias]| {
                let queries = queries.squeeze_dim::<3>(0);
                let [keys, values] = [keys, values].map(|x| {
                    let x = x.reshape([rows, memory, heads, d_head]);
                    x.swap_dims(1, 2)
                });
                let bias = bias.reshape([rows, 1, 1, memory]);
                attend(&queries, [&keys, &values], Some(&bias), 0.3, false).unsqueeze()
            },
            |inputs| equation(inputs, shape, 0.3),
        );
    }
}

/// Without gradients: few queries, many, and on matrix units exactly and rounded.
#[test]
fn answers_are_the_equations_too() {
    for shape in [
        [1, 1, 1, 1, 1],
        [3, 1, 2, 5, 64],
        [2, 7, 3, 100, 64],
        [1, 8, 2, 17, 24],
        [2, 40, 2, 33, 64],
        [1, 130, 1, 140, 32],
    ] {
        let [rows, length, heads, memory, d_head] = shape;
        let queries: Tensor<3> = scattered([rows, length, heads * d_head]);
        let [keys, values] = [(); 2].map(|()| scattered([rows, memory, heads, d_head]));
        let bias = scattered([rows, 1, 1, memory]);
        let exact = [
            in_f64(&queries),
            in_f64(&keys),
            in_f64(&values),
            in_f64(&bias),
        ];
        let expected = equation(exact.each_ref().map(Vec::as_slice), shape, 0.3);
        let [keys, values] = [keys, values].map(|x: Tensor<4>| x.swap_dims(1, 2));
        on_each_processor(|processor| {
            for (rounded, tolerance) in [(false, 5e-6), (true, 2e-2)] {
                let found = attend(&queries, [&keys, &values], Some(&bias), 0.3, rounded);
                let error = error(&in_f64(&found), &expected);
                assert!(error <= tolerance, "{processor}, {rounded}: {error}");
            }
        });
    }
}

/// Rows that share keys and values.
#[test]
fn keys_that_rows_share_are_as_copies_of_them() {
    for length in [1, 9, 40] {
        let queries = scattered([3, length, 32]);
        let [keys, values] = [(); 2].map(|()| scattered([1, 2, 50, 16]));
        let [of_rows, values_of_rows] = [&keys, &values].map(|x| x.clone().repeat_dim(0, 3));
        on_each_processor(|_| {
            let shared = attend(&queries, [&keys, &values], None, 0.3, false);
            let copied = attend(&queries, [&of_rows, &values_of_rows], None, 0.3, false);
            assert_eq!(shared.into_data(), copied.into_data());
        });
        let device = Device::flex().autodiff();
        let queries = queries.clone().autodiff();
        let [keys, values] = [keys, values].map(|x| Tensor::from_data(x.into_data(), &device));
        assert!(attention(inputs_of(&queries, [&keys, &values], None)).is_none());
    }
}

/// One step after the other, as tensors, with some of the weights dropped.
fn expected(
    queries: Tensor<3>,
    [keys, values]: [&Tensor<4>; 2],
    bias: Option<Tensor<4>>,
    scale: f64,
    drop: impl Fn(Tensor<4>) -> Tensor<4>,
) -> Tensor<3> {
    let [rows, length, inner] = queries.dims();
    let [_, heads, _, d_head] = keys.dims();
    let queries = queries
        .reshape([rows, length, heads, d_head])
        .swap_dims(1, 2);
    let mut scores = queries.matmul(keys.clone().swap_dims(2, 3)) * scale;
    if let Some(bias) = bias {
        scores = scores + bias;
    }
    let heads = drop(activation::softmax(scores, 3)).matmul(values.clone());
    heads.swap_dims(1, 2).reshape([rows, length, inner])
}

#[test]
fn heads_attend_as_tensors_do() {
    for [rows, length, heads, memory_length, d_head] in [
        [1, 1, 1, 1, 1],
        [3, 1, 2, 5, 64],
        [2, 4, 3, 160, 64],
        [5, 40, 2, 33, 64],
        [1, 300, 2, 300, 32],
        [2, 9, 4, 17, 80],
    ] {
        let queries = scattered([rows, length, heads * d_head]);
        // As attention makes them: the heads of a token lie together.
        let of_tokens = || scattered([rows, memory_length, heads, d_head]).swap_dims(1, 2);
        let memory = [of_tokens(), of_tokens()];
        let memory = memory.each_ref();
        let hidden = scattered([rows, 1, 1, memory_length])
            .greater_elem(1.0)
            .float()
            * -1e9;
        let biases = [
            None,
            Some(hidden),
            Some(scattered([1, heads, length, memory_length])),
            Some(scattered([1, 1, length, memory_length])),
        ];
        for bias in biases {
            let expected = expected(queries.clone(), memory, bias.clone(), 0.125, |weights| {
                weights
            });
            let expected = expected.into_data();
            on_each_processor(|_| {
                let found = attend(&queries, memory, bias.as_ref(), 0.125, false);
                let rounded = attend(&queries, memory, bias.as_ref(), 0.125, true);
                for (found, tolerance) in [(found, 1e-5), (rounded, 3e-2)] {
                    let tolerance = Tolerance::<f32>::rel_abs(10.0 * tolerance, tolerance);
                    found.into_data().assert_approx_eq(&expected, tolerance);
                }
            });
        }
    }
}

#[test]
fn attention_is_burns_with_its_gradients() {
    let _alone = RANDOM.lock();
    for [rows, length, heads, memory_length, d_head] in
        [[1, 1, 1, 1, 1], [3, 5, 2, 7, 4], [2, 33, 3, 40, 16]]
    {
        let [queries, keys, values] = [length, memory_length, memory_length]
            .map(|tokens| scattered([rows, tokens, heads, d_head]));
        for shape in [
            [rows, 1, 1, memory_length],
            [rows, heads, 1, memory_length],
            [1, heads, length, memory_length],
            [rows, heads, length, memory_length],
        ] {
            let inputs = [
                queries.clone(),
                keys.clone(),
                values.clone(),
                scattered(shape),
            ];
            for probability in [0.0, 0.3] {
                let attended = |[queries, keys, values, bias]: [Tensor<4>; 4], ours: bool| {
                    queries.device().seed(6);
                    let queries = queries.reshape([rows, length, heads * d_head]);
                    // As attention makes them: the heads of a token lie together.
                    let memory = [keys.swap_dims(1, 2), values.swap_dims(1, 2)];
                    let memory = memory.each_ref();
                    let y = match ours {
                        true => attention(Attention {
                            scale: 0.4,
                            dropout: probability,
                            ..inputs_of(&queries, memory, Some(&bias))
                        })
                        .unwrap(),
                        false => expected(queries, memory, Some(bias), 0.4, |weights| {
                            match probability > 0.0 {
                                true => {
                                    let mask = Mask::draw(probability, &weights.device());
                                    dropout(weights, mask)
                                }
                                false => weights,
                            }
                        }),
                    };
                    y.unsqueeze()
                };
                for tracked in 1..1 << 4 {
                    let of = |ours| {
                        with_gradients(inputs.clone(), tracked, |inputs| attended(inputs, ours))
                    };
                    assert_all_close(of(true), &of(false));
                }
            }
        }
    }
}

/// Few queries, many, and on matrix units; and with gradients.
#[test]
fn a_bias_repeats_over_the_queries() {
    for [period, times, memory_length] in [[3, 2, 5], [9, 3, 20], [40, 2, 64]] {
        let length = period * times;
        let queries = scattered([2, length, 2 * 32]);
        let memory = [(); 2].map(|()| scattered([2, 2, memory_length, 32]));
        let biases = [[1, 1], [2, 1], [2, 2]];
        for bias in biases.map(|[rows, heads]| scattered([rows, heads, period, memory_length])) {
            let repeated = bias.clone().repeat_dim(2, times);
            on_each_processor(|_| {
                for rounded in [false, true] {
                    let of = |bias| attend(&queries, memory.each_ref(), Some(bias), 0.3, rounded);
                    assert_eq!(of(&bias).into_data(), of(&repeated).into_data());
                }
            });
            let of = |repeats: bool| {
                let [keys, values] = memory.clone();
                let inputs = [queries.clone().unsqueeze(), keys, values, bias.clone()];
                with_gradients(inputs, 0b1111, |[queries, keys, values, bias]| {
                    let bias = match repeats {
                        true => bias,
                        false => bias.repeat_dim(2, times),
                    };
                    let queries = queries.squeeze_dim::<3>(0);
                    attend(&queries, [&keys, &values], Some(&bias), 0.3, false).unsqueeze()
                })
            };
            assert_all_close(of(true), &of(false));
        }
    }
}

#[test]
#[should_panic(expected = "a bias of 2 queries for 3")]
fn a_bias_for_part_of_the_queries_is_refused() {
    let keys = scattered([1, 1, 4, 8]);
    let bias = scattered([1, 1, 2, 4]);
    attend(
        &scattered([1, 3, 8]),
        [&keys, &keys],
        Some(&bias),
        1.0,
        false,
    );
}
