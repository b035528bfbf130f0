//! The blocks that answering consists of, at the sizes of BART-large, by themselves: `cargo bench --bench blocks`.
//! Items a second are floating-point operations; integer ones in int8.

use burn_rag::{
    burn::tensor::{Distribution, Tensor},
    core::{
        Device, device,
        nn::{
            Attention, AttentionConfig, FeedForward, FeedForwardConfig, KeysValues, LinearConfig,
            Precision, activation, log_softmax,
        },
    },
};
use divan::{Bencher, black_box, counter::ItemsCount};

const D_MODEL: usize = 1024;
const D_HIDDEN: usize = 4096;
const HEADS: usize = 16;
const VOCABULARY: usize = 50_265;

/// Rows of a decoding step, greedy and with four beams in five documents; and of five contexts.
const ROWS: [usize; 3] = [5, 20, 800];
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

fn main() {
    // As in a program that serves questions.
    burn_rag::cpu::keep_freed_pages();
    divan::main();
}

fn cases() -> impl Iterator<Item = (Precision, usize)> {
    PRECISIONS
        .into_iter()
        .flat_map(|precision| ROWS.map(|rows| (precision, rows)))
}

fn cpu() -> Device {
    device("cpu").expect("a build with the feature flex")
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &cpu())
}

#[divan::bench(args = cases())]
fn feed_forward(bencher: Bencher<'_, '_>, (precision, rows): (Precision, usize)) {
    let gelu = activation("gelu").expect("a name that checkpoints have");
    let block: FeedForward = FeedForwardConfig::new(D_MODEL, D_HIDDEN, gelu).init(&cpu());
    let block = block.pack(precision);
    let states = random([1, rows, D_MODEL]);
    bencher
        .counter(ItemsCount::new(4 * rows * D_MODEL * D_HIDDEN))
        .bench(|| black_box(block.forward(states.clone(), Precision::F32)));
}

/// To 160 tokens of each of five contexts, projections included.
#[divan::bench(args = cases())]
fn attention(bencher: Bencher<'_, '_>, (precision, rows): (Precision, usize)) {
    let d_head = D_MODEL / HEADS;
    let config = AttentionConfig::new(D_MODEL, HEADS, d_head, (d_head as f64).powf(-0.5));
    let block: Attention = config.init(&cpu()).pack(precision);
    let states = random([5, rows / 5, D_MODEL]);
    let memory = KeysValues {
        keys: random([5, HEADS, 160, d_head]),
        values: random([5, HEADS, 160, d_head]),
    };
    bencher
        .counter(ItemsCount::new(4 * rows * D_MODEL * (D_MODEL + 160)))
        .bench(|| black_box(block.forward(states.clone(), &memory, None, Precision::F32)));
}

/// The distribution over all words.
#[divan::bench(args = PRECISIONS.into_iter().flat_map(|precision| [5, 20].map(|rows| (precision, rows))))]
fn head(bencher: Bencher<'_, '_>, (precision, rows): (Precision, usize)) {
    let config = LinearConfig::new(D_MODEL, VOCABULARY).with_bias(false);
    let block = config.init(&cpu()).pack(precision);
    let states = random([rows, D_MODEL]);
    bencher
        .counter(ItemsCount::new(2 * rows * D_MODEL * VOCABULARY))
        .bench(|| black_box(log_softmax(block.forward(states.clone(), Precision::F32))));
}
