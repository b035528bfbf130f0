//! Products for any processor, in loops that the compiler makes vectors of where it knows instructions for them (Neon,
//! and not SSE2).

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use super::super::groups::Quad;
use super::super::{
    panels::{LANES, Line},
    product::{Kernel, Rows},
};

/// For all processors.
pub const KERNEL: Kernel<i16, Quad, i32> = Kernel {
    rows: 4,
    width: 1,
    inputs: 4,
    tile,
};

fn tile(x: Rows<'_, i16>, weights: &[Line<Quad>], sums: &mut [Line<i32>]) {
    for (row, sums) in sums.iter_mut().enumerate() {
        let x = x.numbers()[row * x.stride()..].as_chunks::<4>().0;
        let mut found = sums.0;
        for (x, line) in x[..weights.len()].iter().zip(weights) {
            for lane in 0..LANES {
                let weights = line.0[lane];
                let product = |input: usize| i32::from(x[input]) * i32::from(weights[input]);
                found[lane] += product(0) + product(1) + product(2) + product(3);
            }
        }
        sums.0 = found;
    }
}
