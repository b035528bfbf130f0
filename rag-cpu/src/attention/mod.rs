//! softmax(scale · Q Kᵀ + bias) V of every head, without the tensors that would be between the steps.

mod few;
mod heads;
mod many;
#[cfg(target_arch = "x86_64")]
mod tiled;
mod training;
mod vectors;

use burn::tensor::Tensor;

use crate::{
    activation::Mask,
    flex::{primitive, serves, tensor},
    processor::Processor,
    view::View,
};
use heads::{Bias, Heads};
use training::Settings;
use vectors::TRANSPOSE_FROM_QUERIES;

#[cfg(target_arch = "x86_64")]
use crate::amx;

/// The operands of attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// `[rows, length, heads · d_head]`.
    pub queries: &'a Tensor<3>,
    /// `[rows | 1, heads, memory length, d_head]`.
    pub keys: &'a Tensor<4>,
    /// `[rows | 1, heads, memory length, d_head]`.
    pub values: &'a Tensor<4>,
    /// The bias of the scores, `[rows | 1, heads | 1, period, memory length]`, where the period divides the length of the
    /// queries: query i has the bias of `i % period`. It is 1 where all queries have the same.
    pub bias: Option<&'a Tensor<4>>,
    /// The factor of the scores.
    pub scale: f64,
    /// The probability to drop a weight, where gradients are asked for.
    pub dropout: f64,
    /// Whether products of many queries may be rounded to bf16, where that is faster.
    pub rounded: bool,
}

/// A kernel of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// Burn's own operations.
    Burn,
    /// One head of a row after the other, with gradients.
    Training,
    /// Vectors; tasks share the heads.
    Few,
    /// Vectors; tasks share the queries, and keys are transposed.
    Many,
    /// Matrix units.
    #[cfg(target_arch = "x86_64")]
    Tiles {
        /// Parts of bf16 that a number is split into.
        parts: usize,
    },
}

/// The properties that decide the path.
#[derive(Clone, Copy, Debug)]
struct Case {
    processor: Processor,
    rows: usize,
    memory_rows: usize,
    /// Queries of a row.
    queries: usize,
    /// Keys of a row.
    keys: usize,
    /// Whether all tensors are f32 on the CPU.
    serves: bool,
    /// Whether a tensor is on the device with gradients.
    gradients: bool,
    /// Whether products may be rounded to bf16.
    rounded: bool,
}

/// The path of a case. Those without gradients read keys and values that rows share, and have nothing to drop.
fn choose(case: Case) -> Path {
    let empty = [case.rows, case.queries, case.keys].contains(&0);
    match case {
        _ if !case.serves || empty => Path::Burn,
        _ if case.gradients && case.rows != case.memory_rows => Path::Burn,
        _ if case.gradients => Path::Training,
        _ if case.queries < TRANSPOSE_FROM_QUERIES => Path::Few,
        #[cfg(target_arch = "x86_64")]
        Case {
            processor: Processor::Amx,
            rounded,
            ..
        } if case.queries.min(case.keys) >= amx::PANEL_ROWS => Path::Tiles {
            parts: if rounded { 1 } else { 3 },
        },
        _ => {
            let _ = (case.processor, case.rounded);
            Path::Many
        }
    }
}

/// The heads' values, `[rows, length, heads · d_head]`. `None` where Burn's own operations are to compute them: a tensor does
/// not [serve](crate::serves), there is nothing to attend to, or gradients are asked for of keys that rows share.
///
/// # Panics
/// If the period of the bias does not divide the length of the queries.
pub fn attention(inputs: Attention<'_>) -> Option<Tensor<3>> {
    let Attention {
        queries,
        keys,
        values,
        bias,
        scale,
        dropout,
        rounded,
    } = inputs;
    let [rows, length, inner] = queries.dims();
    let [memory_rows, heads, memory_length, d_head] = keys.dims();
    if let Some(bias) = bias {
        let period = bias.dims()[2];
        assert!(
            length.is_multiple_of(period),
            "a bias of {period} queries for {length}"
        );
    }
    let autodiff = [keys, values].into_iter().chain(bias).map(Tensor::device);
    let gradients =
        queries.device().is_autodiff() || autodiff.into_iter().any(|it| it.is_autodiff());
    let processor = Processor::current();
    let path = choose(Case {
        processor,
        rows,
        memory_rows,
        queries: length,
        keys: memory_length,
        serves: serves(queries) && serves(keys) && serves(values) && bias.is_none_or(serves),
        gradients,
        rounded,
    });
    let heads_of = || Heads {
        processor,
        queries: View::new(primitive(queries.clone())),
        keys: View::new(primitive(keys.clone())),
        values: View::new(primitive(values.clone())),
        bias: bias.map(|bias| Bias::new(primitive(bias.clone()))),
        scale: scale as f32,
        memory_length,
        d_head,
    };
    let shape = [rows, length, heads];
    let y = match path {
        Path::Burn => return None,
        Path::Training => {
            let mask = (dropout > 0.0).then(|| Mask::draw(dropout, &queries.device()));
            let scale = scale as f32;
            let settings = Settings { scale, mask };
            let memory = [keys.clone(), values.clone()];
            return Some(training::attend(
                queries.clone(),
                memory,
                bias.cloned(),
                settings,
            ));
        }
        Path::Few => few::attend(&heads_of(), shape),
        Path::Many => many::attend(&heads_of(), shape),
        #[cfg(target_arch = "x86_64")]
        Path::Tiles { parts: 1 } => tiled::attend::<1>(&heads_of(), shape),
        #[cfg(target_arch = "x86_64")]
        Path::Tiles { .. } => tiled::attend::<3>(&heads_of(), shape),
    };
    Some(tensor(y, [rows, length, inner]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_from_queries_processor_and_gradients() {
        let case = |processor, queries| Case {
            processor,
            rows: 2,
            memory_rows: 2,
            queries,
            keys: 40,
            serves: true,
            gradients: false,
            rounded: false,
        };
        let vectors = [Processor::Portable, Processor::Avx2, Processor::Avx512];
        for processor in vectors {
            assert_eq!(choose(case(processor, 7)), Path::Few);
            assert_eq!(choose(case(processor, 8)), Path::Many);
            assert_eq!(choose(case(processor, 40)), Path::Many);
        }
        #[cfg(target_arch = "x86_64")]
        {
            let amx = |queries| case(Processor::Amx, queries);
            assert_eq!(choose(amx(7)), Path::Few);
            assert_eq!(choose(amx(31)), Path::Many);
            assert_eq!(choose(amx(32)), Path::Tiles { parts: 3 });
            let rounded = Case {
                rounded: true,
                ..amx(32)
            };
            assert_eq!(choose(rounded), Path::Tiles { parts: 1 });
            let few_keys = Case {
                keys: 31,
                ..amx(32)
            };
            assert_eq!(choose(few_keys), Path::Many);
        }
        for queries in [1, 40] {
            let case = Case {
                gradients: true,
                ..case(Processor::detected(), queries)
            };
            assert_eq!(choose(case), Path::Training);
            let shared = Case {
                memory_rows: 1,
                ..case
            };
            assert_eq!(choose(shared), Path::Burn);
            let other = Case {
                serves: false,
                gradients: false,
                ..case
            };
            assert_eq!(choose(other), Path::Burn);
            let empty = Case {
                keys: 0,
                gradients: false,
                ..case
            };
            assert_eq!(choose(empty), Path::Burn);
        }
    }
}
