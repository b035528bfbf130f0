//! Sums and maxima of rows, in 16 lanes as vectors have them: the same in every run.

/// The sum of `value` over a row.
#[inline(always)]
pub(crate) fn sum(row: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    sum_of_both(row, row, |x, _| value(x))
}

/// The sum of `value` over two rows.
#[inline(always)]
pub(crate) fn sum_of_both(x: &[f32], y: &[f32], value: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; 16];
    let (x, y) = (x.chunks_exact(16), y.chunks_exact(16));
    let last = x.remainder().iter().zip(y.remainder());
    let last = last.fold(0.0, |sum, (x, y)| sum + value(*x, *y));
    for (x, y) in x.zip(y) {
        for i in 0..16 {
            lanes[i] += value(x[i], y[i]);
        }
    }
    of_lanes(lanes, |a, b| a + b) + last
}

/// Replaces a row by `value` of it, and returns the sum.
#[inline(always)]
pub(crate) fn sum_of_new(row: &mut [f32], value: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; 16];
    let mut chunks = row.chunks_exact_mut(16);
    for x in &mut chunks {
        for i in 0..16 {
            x[i] = value(x[i]);
            lanes[i] += x[i];
        }
    }
    let last = chunks.into_remainder().iter_mut().fold(0.0, |sum, x| {
        *x = value(*x);
        sum + *x
    });
    of_lanes(lanes, |a, b| a + b) + last
}

/// The highest of a row, passing over what is not a number.
#[inline(always)]
pub(crate) fn highest(row: &[f32]) -> f32 {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = row.chunks_exact(16);
    let last = chunks.remainder().iter().copied();
    let last = last.fold(f32::NEG_INFINITY, higher);
    for x in chunks {
        for i in 0..16 {
            lanes[i] = higher(lanes[i], x[i]);
        }
    }
    higher(of_lanes(lanes, higher), last)
}

/// Combines halves upon halves, which vectors are faster at than at one number after the other.
#[inline(always)]
fn of_lanes(mut lanes: [f32; 16], both: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = both(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}
