//! The instructions on tile registers in plain Rust: for tests on processors without AMX.

use std::ops::AddAssign;

use bytemuck::Pod;

use super::{
    instructions::Sums,
    tile::{PANEL_ROWS, TILE_ROWS, Tile},
};

/// See `Bf16::sum`.
pub(super) fn sum_bf16<const P: usize>(left: &[Tile], right: &[Tile], sums: &mut Sums) {
    let products: &[(usize, usize)] = match P {
        1 => &[(0, 0)],
        _ => &[(2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0)],
    };
    let halves = |pair: u32| [pair << 16, pair & 0xFFFF_0000].map(f32::from_bits);
    sum(left, right, P, products, sums, |x, w| {
        let ([x, x_next], [w, w_next]) = (halves(x), halves(w));
        x * w + x_next * w_next
    });
}

/// See `Int8::sum`.
pub(super) fn sum_int8(left: &[Tile], right: &[Tile], sums: &mut Sums) {
    let integers = |quad: u32| quad.to_le_bytes().map(|byte| i32::from(byte as i8));
    sum(left, right, 1, &[(0, 0)], sums, |x, w| {
        let products = integers(x).into_iter().zip(integers(w));
        products.map(|(x, w)| x * w).sum::<i32>()
    });
}

/// The sums of products of such parts of the left and of the right panel.
fn sum<S: AddAssign + Default + Pod>(
    left: &[Tile],
    right: &[Tile],
    parts: usize,
    products: &[(usize, usize)],
    sums: &mut Sums,
    multiply: impl Fn(u32, u32) -> S,
) {
    let mut totals = [[S::default(); PANEL_ROWS]; PANEL_ROWS];
    let steps = left.chunks_exact(2 * parts);
    for (left, right) in steps.zip(right.chunks_exact(2 * parts)) {
        for &(left_part, right_part) in products {
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (left, right) = (&left[2 * left_part + i], &right[2 * right_part + j]);
                add_products(left, right, &multiply, |row, column, product| {
                    totals[i * TILE_ROWS + row][j * TILE_ROWS + column] += product;
                });
            }
        }
    }
    sums.0 = bytemuck::cast(totals);
}

/// `tdpbf16ps` or `tdpbssd`: adds the products of the left tile's groups of 32 bits in a row with the right tile's in a
/// column.
fn add_products<S: AddAssign + Default>(
    left: &Tile,
    right: &Tile,
    multiply: impl Fn(u32, u32) -> S,
    mut add: impl FnMut(usize, usize, S),
) {
    for row in 0..TILE_ROWS {
        for column in 0..TILE_ROWS {
            let mut total = S::default();
            for k in 0..TILE_ROWS {
                total += multiply(left.0[row][k], right.0[k][column]);
            }
            add(row, column, total);
        }
    }
}
