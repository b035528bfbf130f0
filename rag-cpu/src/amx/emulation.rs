//! What the instructions on tile registers compute, in plain Rust: for tests on processors without AMX.

use super::tile::{PANEL_ROWS, TILE_ROWS, Tile};

/// See `kernel::sum`.
pub(super) fn sum<const P: usize>(
    left: &[Tile],
    right: &[Tile],
    sums: &mut [[f32; PANEL_ROWS]; PANEL_ROWS],
) {
    *sums = [[0.0; PANEL_ROWS]; PANEL_ROWS];
    let products: &[(usize, usize)] = match P {
        1 => &[(0, 0)],
        _ => &[(2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0)],
    };
    let steps = left.chunks_exact(2 * P).zip(right.chunks_exact(2 * P));
    for (left, right) in steps {
        for &(left_part, right_part) in products {
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (left, right) = (&left[2 * left_part + i], &right[2 * right_part + j]);
                add_products(left, right, |row, column, product| {
                    sums[i * TILE_ROWS + row][j * TILE_ROWS + column] += product;
                });
            }
        }
    }
}

/// `tdpbf16ps`: adds the products of the left tile's pairs in a row with the right tile's in a column.
fn add_products(left: &Tile, right: &Tile, mut add: impl FnMut(usize, usize, f32)) {
    let halves = |pair: u32| [pair << 16, pair & 0xFFFF_0000].map(f32::from_bits);
    for row in 0..TILE_ROWS {
        for column in 0..TILE_ROWS {
            let mut total = 0.0;
            for k in 0..TILE_ROWS {
                let [a, b] = halves(left.0[row][k]);
                let [c, d] = halves(right.0[k][column]);
                total += a * c + b * d;
            }
            add(row, column, total);
        }
    }
}

/// See `kernel::sum_integers`: `tdpbssd` adds the products of the left tile's fours in a row with the right tile's in a
/// column.
pub(super) fn sum_integers(
    left: &[Tile],
    right: &[Tile],
    sums: &mut [[f32; PANEL_ROWS]; PANEL_ROWS],
) {
    let integers = |quad: u32| quad.to_le_bytes().map(|byte| i32::from(byte as i8));
    for (row, sums) in sums.iter_mut().enumerate() {
        for (column, sum) in sums.iter_mut().enumerate() {
            let mut total = 0;
            for (left, right) in left.chunks_exact(2).zip(right.chunks_exact(2)) {
                let (left, right) = (&left[row / TILE_ROWS], &right[column / TILE_ROWS]);
                for k in 0..TILE_ROWS {
                    let x = integers(left.0[row % TILE_ROWS][k]);
                    let w = integers(right.0[k][column % TILE_ROWS]);
                    total += x.iter().zip(w).map(|(x, w)| x * w).sum::<i32>();
                }
            }
            *sum = f32::from_bits(total.cast_unsigned());
        }
    }
}
