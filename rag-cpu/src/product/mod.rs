//! Products of matrices in f32, into the caller's memory. Burn's CPU backend writes them to tensors that it clears, copies
//! to other memory, and then fills.

mod blocked;
mod gemm;

use crate::{
    matrix::{Cores, Initial, Matrix, check},
    processor::Processor,
};

#[cfg(target_arch = "x86_64")]
use crate::amx;

/// A kernel that multiplies two matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Matrix units, on numbers in three parts of bf16.
    #[cfg(target_arch = "x86_64")]
    Tiles,
    /// The crate gemm, which finds the processor's vectors itself.
    Gemm,
    /// A loop over blocks, in plain Rust.
    Blocked,
}

/// With fewer rows, inner elements or columns, packing numbers into tiles takes longer than it gains.
#[cfg(target_arch = "x86_64")]
const SMALLEST_SIDE_FOR_TILES: usize = 32;

/// Multiplications from which on all cores share a product.
const MULTIPLICATIONS_TO_SHARE: usize = 192 * 192 * 192;

/// The kernel for a product of `[rows, inner]` and `[inner, columns]`.
pub(crate) fn choose(processor: Processor, [rows, inner, columns]: [usize; 3]) -> Kernel {
    match processor {
        #[cfg(target_arch = "x86_64")]
        Processor::Amx if rows.min(inner).min(columns) >= SMALLEST_SIDE_FOR_TILES => Kernel::Tiles,
        Processor::Portable => Kernel::Blocked,
        _ => {
            let _ = [rows, inner, columns];
            Kernel::Gemm
        }
    }
}

/// `initial + a b`, row-major.
pub(crate) fn product(
    processor: Processor,
    a: Matrix<'_>,
    b: Matrix<'_>,
    initial: Initial<'_>,
) -> Vec<f32> {
    assert!(
        !matches!(initial, Initial::Previous),
        "there are no previous elements"
    );
    let (count, columns) = (a.rows() * b.columns(), b.columns());
    let (kernel, cores) = plan(processor, a, b, initial, Cores::All);
    if kernel == Kernel::Blocked {
        let mut y = vec![0.0; count];
        blocked::multiply(a, b, &mut y, columns, initial, cores);
        return y;
    }
    let mut y = Vec::with_capacity(count);
    // SAFETY: there is room for `count` elements, `write` writes all of them, and reads none before, since `initial` is
    // not `Previous`.
    unsafe {
        write(kernel, a, b, y.as_mut_ptr(), columns, initial, cores);
        y.set_len(count);
    }
    y
}

/// Makes `y`, whose rows are `stride` apart, `initial + a b`.
pub(crate) fn multiply(
    processor: Processor,
    a: Matrix<'_>,
    b: Matrix<'_>,
    y: &mut [f32],
    stride: usize,
    initial: Initial<'_>,
    cores: Cores,
) {
    check(y, [a.rows(), b.columns()], stride);
    assert!(
        a.rows() <= 1 || b.columns() <= stride,
        "rows of the product overlap"
    );
    let (kernel, cores) = plan(processor, a, b, initial, cores);
    if kernel == Kernel::Blocked {
        return blocked::multiply(a, b, y, stride, initial, cores);
    }
    // SAFETY: `y` has been checked to have room for the product, and its rows not to overlap; it is borrowed mutably, so
    // that nobody else reads or writes it; its elements are initialised.
    unsafe { write(kernel, a, b, y.as_mut_ptr(), stride, initial, cores) };
}

/// The kernel and the cores of a product, whose shapes are checked.
fn plan(
    processor: Processor,
    a: Matrix<'_>,
    b: Matrix<'_>,
    initial: Initial<'_>,
    cores: Cores,
) -> (Kernel, Cores) {
    let shape = [a.rows(), a.columns(), b.columns()];
    assert_eq!(a.columns(), b.rows(), "columns of a, rows of b");
    if let Initial::Bias(bias) = initial {
        assert_eq!(bias.len(), b.columns(), "as many numbers as columns");
    }
    let cores = match shape.iter().product::<usize>() >= MULTIPLICATIONS_TO_SHARE {
        true => cores,
        false => Cores::One,
    };
    (choose(processor, shape), cores)
}

/// Writes all elements of the product.
///
/// # Safety
/// `y` is valid for writes of `a.rows()` rows of `b.columns()` elements, `stride` apart, which do not overlap and which
/// nobody else reads or writes meanwhile; with [`Initial::Previous`] they are initialised. The shapes are those that
/// [`plan`] has checked.
unsafe fn write(
    kernel: Kernel,
    a: Matrix<'_>,
    b: Matrix<'_>,
    y: *mut f32,
    stride: usize,
    initial: Initial<'_>,
    cores: Cores,
) {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's promise is the one that is asked for.
        Kernel::Tiles => unsafe { amx::write_product(a, b, y, stride, initial, cores) },
        // SAFETY: the caller's promise is the one that is asked for.
        Kernel::Gemm => unsafe { gemm::write(a, b, y, stride, initial, cores) },
        Kernel::Blocked => unreachable!("it writes to a slice"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than what is multiplied at a time.
    const PIECE: usize = 8192;

    #[test]
    fn products_are_those_of_rows_and_columns() {
        let number = |i: usize| ((i * 37) % 23) as f32 - 11.0;
        for [rows, inner, columns] in [
            [1, 1, 1],
            [3, 4, 5],
            [7, 0, 2],
            [200, 210, 220],
            [PIECE + 1, 0, PIECE + 1],
            [2, 3, PIECE + 1],
            [PIECE + 1, 3, 2],
        ] {
            let a: Vec<f32> = (0..rows * inner).map(number).collect();
            let b: Vec<f32> = (0..inner * columns).map(number).collect();
            let expected = |i: usize, j: usize| -> f32 {
                (0..inner)
                    .map(|k| a[i * inner + k] * b[k * columns + j])
                    .sum()
            };
            let transposed: Vec<f32> = (0..columns * inner)
                .map(|i| b[i % inner * columns + i / inner])
                .collect();
            let matrix = Matrix::new(&a, [rows, inner]);
            let other = Matrix::new(&transposed, [columns, inner]).transposed();
            let row: Vec<f32> = (0..columns).map(number).collect();
            for processor in Processor::available() {
                for (b, initial) in [
                    (Matrix::new(&b, [inner, columns]), Initial::Zero),
                    (other, Initial::Previous),
                    (other, Initial::Bias(&row)),
                ] {
                    let mut y = vec![3.0; rows * columns];
                    multiply(processor, matrix, b, &mut y, columns, initial, Cores::All);
                    for (i, found) in y.iter().enumerate() {
                        let before = match initial {
                            Initial::Zero => 0.0,
                            Initial::Bias(row) => row[i % columns],
                            Initial::Previous => 3.0,
                        };
                        assert_eq!(*found, before + expected(i / columns, i % columns));
                    }
                    if !matches!(initial, Initial::Previous) {
                        assert_eq!(product(processor, matrix, b, initial), y);
                    }
                }
            }
        }
    }

    /// Sides from 32 on are matrix units' where there are some; strides, both orders, and sums that begin with others.
    #[test]
    fn products_are_those_of_f64() {
        let numbers = |count: usize, seed: usize| -> Vec<f32> {
            let number = |i: usize| ((i * 7919 + seed) as f32 * 0.618_034).fract() - 0.5;
            (0..count).map(number).collect()
        };
        for [rows, inner, columns] in [[1, 3, 2], [32, 32, 32], [33, 100, 70], [45, 1100, 150]] {
            let (a, b) = (numbers(rows * inner, 1), numbers(columns * inner, 2));
            let transposed = |x: &[f32]| -> Vec<f32> {
                let lines = x.len() / inner;
                let of = |i| x[i % lines * inner + i / lines];
                (0..x.len()).map(of).collect()
            };
            let (a_transposed, b_transposed) = (transposed(&a), transposed(&b));
            let lefts = [
                Matrix::new(&a, [rows, inner]),
                Matrix::new(&a_transposed, [inner, rows]).transposed(),
            ];
            let rights = [
                Matrix::new(&b, [columns, inner]).transposed(),
                Matrix::new(&b_transposed, [inner, columns]),
            ];
            let bias = numbers(columns, 3);
            let exact = |i: usize, j: usize| -> f64 {
                let product = |k| f64::from(a[i * inner + k]) * f64::from(b[j * inner + k]);
                (0..inner).map(product).sum()
            };
            let expected: Vec<f64> = (0..rows * columns)
                .map(|i| exact(i / columns, i % columns))
                .collect();
            for processor in Processor::available() {
                for (i, (left, right)) in lefts
                    .into_iter()
                    .flat_map(|left| rights.map(|right| (left, right)))
                    .enumerate()
                {
                    let cores = [Cores::All, Cores::One][i % 2];
                    for initial in [Initial::Zero, Initial::Bias(&bias), Initial::Previous] {
                        let stride = columns + 3;
                        let mut y = vec![2.0; rows * stride];
                        multiply(processor, left, right, &mut y, stride, initial, cores);
                        let (mut errors, mut squares) = (0.0, 0.0);
                        for (row, y) in y.chunks(stride).enumerate() {
                            assert_eq!(&y[columns..], [2.0; 3], "{processor}");
                            for (column, y) in y[..columns].iter().enumerate() {
                                let before = match initial {
                                    Initial::Zero => 0.0,
                                    Initial::Bias(bias) => f64::from(bias[column]),
                                    Initial::Previous => 2.0,
                                };
                                let exact = before + expected[row * columns + column];
                                errors += (f64::from(*y) - exact).powi(2);
                                squares += exact * exact;
                            }
                        }
                        let error = (errors / squares).sqrt();
                        assert!(error < 1e-6, "{processor}, {initial:?}: {error}");
                    }
                }
            }
        }
    }
}
