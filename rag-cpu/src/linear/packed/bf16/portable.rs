//! Products for any processor, in loops that the compiler makes vectors of.

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use super::super::groups::{Pair, halves};
use super::super::{
    panels::{LANES, Line},
    product::{Kernel, Rows, for_rows, rows_of_sums},
};

/// Rows of a tile, whose sums are 4 registers of 4 numbers each: half of the registers that there are.
const ROWS: usize = if cfg!(target_arch = "aarch64") { 4 } else { 2 };

/// For all processors.
pub const KERNEL: Kernel<f32, Pair, f32> = Kernel {
    rows: ROWS,
    width: 1,
    inputs: 2,
    tile,
};

fn tile(x: Rows<'_, f32>, weights: &[Line<Pair>], sums: &mut [Line<f32>]) {
    for_rows!(x.count(), [1, 2, 3, 4], |R| tile_of::<R>(x, weights, sums))
}

fn tile_of<const R: usize>(x: Rows<'_, f32>, weights: &[Line<Pair>], sums: &mut [Line<f32>]) {
    let sums = rows_of_sums::<_, R, 1>(sums);
    let mut rows: [&[[f32; 2]]; R] = [&[]; R];
    for (row, steps) in rows.iter_mut().enumerate() {
        *steps = &x.numbers()[row * x.stride()..].as_chunks().0[..weights.len()];
    }
    let mut registers = [[0.0; LANES]; R];
    for row in 0..R {
        registers[row] = sums[row][0].0;
    }
    for (i, line) in weights.iter().enumerate() {
        for row in 0..R {
            let [first, second] = rows[row][i];
            for lane in 0..LANES {
                let weights = halves(line.0[lane]);
                let sum = multiply_add(first, weights[0], registers[row][lane]);
                registers[row][lane] = multiply_add(second, weights[1], sum);
            }
        }
    }
    for row in 0..R {
        sums[row][0].0 = registers[row];
    }
}

/// `a b + c`, by the instruction for it where every processor has one, with the same result: the product of two bf16
/// is exact.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    match cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        true => a.mul_add(b, c),
        false => a * b + c,
    }
}
