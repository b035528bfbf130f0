//! The lower bound of an answer's time: its products at the machine's peak rate, or its weights at the bandwidth of the
//! memory, whichever takes longer.

use std::time::Instant;

use burn_rag::{
    burn::tensor::Tensor,
    core::{
        marginal::RagModel,
        nn::{LinearConfig, Precision},
    },
    generate::generator::{GeneratorConfig, Sizes, StackSizes},
    prelude::device,
    retrieve::encoder::BertConfig,
};
use rayon::prelude::*;

/// The peak rates of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Operations a second of products of matrices, two a multiplication.
    pub operations: f64,
    /// Bytes a second read from memory.
    pub bandwidth: f64,
}

/// An answer whose time is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub model: RagModel,
    pub question_length: usize,
    pub contexts: usize,
    pub context_length: usize,
    pub beams: usize,
    pub tokens: usize,
}

/// Rows that pass through weights, once.
#[derive(Clone, Copy, Debug)]
struct Pass {
    rows: usize,
    weights: usize,
    /// Multiplications of a row with keys and values.
    attention: usize,
    /// Keys and values that are read.
    cached: usize,
}

impl Machine {
    /// The best of several tries on all cores; `bytes` should be more than any cache holds.
    pub fn measure(precision: Precision, bytes: usize) -> Self {
        let (rows, inputs, outputs) = (800, 1024, 4096);
        let cpu = device("cpu").expect("a build with the feature flex");
        let layer = LinearConfig::new(inputs, outputs)
            .init(&cpu)
            .pack(precision);
        let states = Tensor::<2>::ones([rows, inputs], &cpu);
        let product = fastest(10, || drop(layer.forward(states.clone(), precision)));
        let memory = vec![1_u64; bytes / size_of::<u64>()];
        let read = fastest(5, || {
            let chunks = memory.par_chunks(1 << 17);
            let sum: u64 = chunks.map(|chunk| chunk.iter().sum::<u64>()).sum();
            assert_eq!(sum, memory.len() as u64);
        });
        Self {
            operations: (2 * rows * inputs * outputs) as f64 / product,
            bandwidth: bytes as f64 / read,
        }
    }

    /// Seconds that an answer of these models takes at least, with weights of `width` bytes.
    pub fn limit(
        &self,
        bert: &BertConfig,
        generator: &GeneratorConfig,
        answer: Answer,
        width: f64,
    ) -> f64 {
        answer
            .passes(bert, generator)
            .map(|(times, pass)| {
                let operations = 2 * pass.rows * (pass.weights + pass.attention);
                let bytes = width * (pass.weights + pass.cached) as f64;
                let seconds = (operations as f64 / self.operations).max(bytes / self.bandwidth);
                times as f64 * seconds
            })
            .into_iter()
            .sum()
    }
}

impl Answer {
    /// How often which passes are made.
    fn passes(&self, bert: &BertConfig, generator: &GeneratorConfig) -> [(usize, Pass); 4] {
        let read = self.contexts * self.context_length;
        let Sizes {
            encoder, decoder, ..
        } = generator.family().sizes();
        // The projections of queries and outputs, those of keys and values, and the feed-forward block.
        let queries = |stack: StackSizes<'_>| 2 * stack.d_model * stack.inner;
        let keys = |stack: StackSizes<'_>| 2 * stack.d_model * stack.key_inner;
        let block =
            |stack: StackSizes<'_>| (2 + usize::from(stack.gated)) * stack.d_model * stack.hidden;
        let whole = |stack: StackSizes<'_>| queries(stack) + keys(stack) + block(stack);
        let layer = bert.hidden_size * (4 * bert.hidden_size + 2 * bert.intermediate_size);
        let question = Pass {
            rows: self.question_length,
            weights: bert.num_hidden_layers * layer,
            attention: 2 * bert.num_hidden_layers * self.question_length * bert.hidden_size,
            cached: 0,
        };
        // The layers that contexts go through whole. After them come keys and values: an encoder's for every layer of the
        // decoder, those of a decoder alone for its last one.
        let (stack, layers, projected) = match encoder {
            Some(encoder) => (encoder, encoder.layers, decoder.layers),
            None => (decoder, decoder.layers.saturating_sub(1), 1),
        };
        let reading = Pass {
            rows: read,
            weights: layers * whole(stack) + projected * keys(decoder),
            attention: 2 * layers * self.context_length * stack.inner,
            cached: 0,
        };
        // Keys and values of the contexts are there already; an encoder's are attended to by queries of their own.
        let layer = whole(decoder) + encoder.map_or(0, |_| queries(decoder));
        let step = Pass {
            rows: self.contexts * self.beams,
            weights: decoder.layers * layer + decoder.d_model * generator.vocabulary(),
            attention: 2 * decoder.layers * self.context_length * decoder.inner,
            cached: 2 * decoder.layers * read * decoder.key_inner,
        };
        // Candidates differ in their last word at least, which the other documents are asked for.
        let others = match self.model {
            RagModel::Sequence if self.contexts > 1 => 1,
            _ => 0,
        };
        let candidates = Pass {
            rows: step.rows * (self.contexts - 1),
            ..step
        };
        [
            (1, question),
            (1, reading),
            (self.tokens, step),
            (others, candidates),
        ]
    }
}

/// Seconds that the fastest of several tries took.
pub fn fastest(tries: usize, mut work: impl FnMut()) -> f64 {
    let seconds = (0..tries).map(|_| {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}
