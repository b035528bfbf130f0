//! The arithmetic of the passes, on one task of contiguous numbers. All are compiled again for the vectors that
//! the processor has, by [`vectorised`].

use half::bf16;

use super::AdamWStep;

/// Runs a kernel compiled for this processor's vectors: what is inlined into it. A closure that does not say that it is
/// always inlined may be compiled as a function of its own, without vectors.
#[inline(always)]
pub fn vectorised<R>(kernel: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(kernel)
}

/// Zero for what is too small to count. A document that the answer does not follow from has a gradient of e⁻⁸⁰ and
/// less; numbers below 1e-38 lose digits, and processors take a hundred times longer to multiply them. Of a gradient
/// below 1e-30 an optimiser sees nothing, its square being 0.
#[inline(always)]
pub fn flushed(x: f32) -> f32 {
    if x.abs() < 1e-30 { 0.0 } else { x }
}

/// x Φ(x).
#[inline(always)]
pub fn gelu(x: &mut [f32]) {
    for x in x {
        *x *= normal(*x).0;
    }
}

/// dL/dx of dL/dy: Φ(x) + x φ(x).
#[inline(always)]
pub fn gelu_gradient(dy: &mut [f32], x: &[f32]) {
    for (dy, &x) in dy.iter_mut().zip(x) {
        let (cumulative, density) = normal(x);
        *dy = flushed(*dy * (cumulative + x * density));
    }
}

#[inline(always)]
pub fn drop_some(x: &mut [f32], first: usize, probability: f32, seed: [u32; 2]) {
    let scale = 1.0 / (1.0 - probability);
    // Compared as signed numbers, which vectors can.
    let limit = ((f64::from(probability) - 0.5) * 2f64.powi(32)) as i32;
    for (i, x) in x.iter_mut().enumerate() {
        let number = mixed((first + i) as u32 ^ seed[0]).wrapping_add(seed[1]);
        let keeps = mixed(number) as i32 >= limit;
        *x = if keeps { *x * scale } else { 0.0 };
    }
}

/// Every bit of the result depends on every bit of `x` (MurmurHash3's finalizer).
#[inline(always)]
fn mixed(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85EB_CA6B);
    x ^= x >> 13;
    x = x.wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

#[inline(always)]
pub fn softmax_row(row: &mut [f32]) {
    let highest = highest(row);
    let scale = 1.0 / sum_of_new(row, |x| exp(x - highest));
    for x in row {
        *x = flushed(*x * scale);
    }
}

#[inline(always)]
pub fn log_softmax_row(row: &mut [f32]) {
    let log_total = log_total(row);
    for x in row {
        *x -= log_total;
    }
}

/// log Σ eˣ.
#[inline(always)]
pub fn log_total(row: &[f32]) -> f32 {
    let highest = highest(row);
    highest + sum(row, |x| exp(x - highest)).ln()
}

/// log Σ e^(x + shift) over `parts`, which are x and its shift, element by element.
#[inline(always)]
pub fn log_mixture(parts: &[(&[f32], f32)], mixed: &mut [f32]) {
    mixed.fill(f32::MIN);
    for (x, shift) in parts {
        for (highest, x) in mixed.iter_mut().zip(*x) {
            *highest = highest.max(x + shift);
        }
    }
    let mut sums = vec![0.0; mixed.len()];
    for (x, shift) in parts {
        for ((sum, x), highest) in sums.iter_mut().zip(*x).zip(&*mixed) {
            *sum += exp(x + shift - highest);
        }
    }
    for (mixed, sum) in mixed.iter_mut().zip(sums) {
        *mixed += f32::ln(sum);
    }
}

/// dL/dx = y (dL/dy − Σ y dL/dy).
#[inline(always)]
pub fn softmax_row_gradient(dy: &mut [f32], y: &[f32]) {
    let mean = sum_of_both(dy, y, |dy, y| dy * y);
    for (dy, y) in dy.iter_mut().zip(y) {
        *dy = flushed(y * (*dy - mean));
    }
}

/// dL/dx = dL/dy − eʸ Σ dL/dy.
#[inline(always)]
pub fn log_softmax_row_gradient(dy: &mut [f32], y: &[f32]) {
    let total = sum(dy, |dy| dy);
    if total != 0.0 {
        for (dy, y) in dy.iter_mut().zip(y) {
            *dy = flushed(*dy - total * exp(*y));
        }
    }
}

/// The share of the log-softmax's total in dL/dx, −e^(x − log Σ eˣ) Σ dL/dy, instead of x.
#[inline(always)]
pub fn logit_gradient(x: &mut [f32], log_total: f32, sum: f32) {
    for x in x {
        *x = flushed(-sum * exp(*x - log_total));
    }
}

/// (x − μ) / √(σ² + ε) · γ + β (Ba et al. 2016).
#[inline(always)]
pub fn layer_norm(x: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
    let size = gamma.len() as f32;
    for x in x.chunks_exact_mut(gamma.len()) {
        let mean = sum(x, |x| x) / size;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / size;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for ((x, gamma), beta) in x.iter_mut().zip(gamma).zip(beta) {
            *x = (*x - mean) * scale * gamma + beta;
        }
    }
}

/// With x̂ = (x − μ) / σ and g = dy γ, dx = (g − mean(g) − x̂ mean(g x̂)) / σ, dγ = Σ dy x̂ and dβ = Σ dy
/// (Ba et al. 2016).
#[inline(always)]
pub fn layer_norm_gradient(
    dy: &mut [f32],
    x: &[f32],
    gamma: &[f32],
    epsilon: f32,
    sums: &mut [f32],
) {
    let width = gamma.len();
    let (dgamma, dbeta) = sums.split_at_mut(width);
    for (dy, x) in dy.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let size = width as f32;
        let mean = sum(x, |x| x) / size;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / size;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for i in 0..width {
            dgamma[i] += dy[i] * (x[i] - mean) * scale;
            dbeta[i] += dy[i];
            dy[i] *= gamma[i];
        }
        let mean_g = sum(dy, |g| g) / size;
        let mean_gx = sum_of_both(dy, x, |g, x| g * (x - mean) * scale) / size;
        for (dy, x) in dy.iter_mut().zip(x) {
            *dy = flushed(scale * (*dy - mean_g - (x - mean) * scale * mean_gx));
        }
    }
}

/// A number that AdamW keeps between steps.
pub trait Moment: Copy {
    fn get(self) -> f32;
    /// `x` as it is kept; `random` decides where it is between two numbers.
    fn keep(x: f32, random: u32) -> Self;
}

impl Moment for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn keep(x: f32, _: u32) -> Self {
        x
    }
}

impl Moment for bf16 {
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Up as often as `x` is near the number above: right on average.
    #[inline(always)]
    fn keep(x: f32, random: u32) -> Self {
        Self::from_bits((x.to_bits().wrapping_add(random & 0xFFFF) >> 16) as u16)
    }
}

/// Of the elements from `start` on.
#[inline(always)]
pub fn adamw_update<M: Moment>(
    parameter: &mut [f32],
    gradient: &[f32],
    first: &mut [M],
    second: &mut [M],
    step: AdamWStep,
    start: usize,
) {
    let [beta_1, beta_2] = step.betas;
    let [scale_1, scale_2] = step.betas.map(|beta| 1.0 / (1.0 - beta.powi(step.time)));
    let seed = mixed(step.time as u32);
    let moments = first.iter_mut().zip(second);
    let elements = parameter.iter_mut().zip(gradient).zip(moments);
    for (i, ((p, &g), (first, second))) in elements.enumerate() {
        let m = beta_1 * first.get() + (1.0 - beta_1) * g;
        let v = beta_2 * second.get() + (1.0 - beta_2) * g * g;
        let update = m * scale_1 / ((v * scale_2).sqrt() + step.epsilon);
        *p = *p * step.decay - step.learning_rate * update;
        let random = mixed((start + i) as u32 ^ seed);
        *first = M::keep(m, random);
        *second = M::keep(v, random >> 16);
    }
}

/// a b + c, rounded once: an instruction of processors with AVX2, AVX-512 or Neon, and a call, slow, on others.
#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// Φ(x) and φ(x) of the standard normal distribution: Abramowitz and Stegun 26.2.17, off by 7.5e-8 at most.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let density = exp(-0.5 * x * x) * 0.398_942_3;
    let t = 1.0 / fma(0.231_641_9, x.abs(), 1.0);
    let series = fma(t, fma(t, 1.330_274_5, -1.821_255_9), 1.781_477_9);
    let tail = density * t * fma(t, fma(t, series, -0.356_563_78), 0.319_381_54);
    (if x > 0.0 { 1.0 - tail } else { tail }, density)
}

/// eˣ of x ≤ 0, to the last bits: 2ⁿ eʳ with |r| ≤ ln 2 / 2. 0 where f32 has no normal number.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Added, it leaves the nearest integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first short enough that n times it is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma(n, -LN_2_LOW, fma(n, -LN_2_HIGH, x));
    let series = fma(r, fma(r, 1.0 / 5_040.0, 1.0 / 720.0), 1.0 / 120.0);
    let series = fma(r, fma(r, series, 1.0 / 24.0), 1.0 / 6.0);
    let series = fma(r, series, 0.5);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    if x < -87.0 {
        0.0
    } else {
        power * fma(r, fma(r, series, 1.0), 1.0)
    }
}

/// The sum of `value` over a row.
#[inline(always)]
fn sum(row: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    sum_of_both(row, row, |x, _| value(x))
}

/// The sum of `value` over two rows, in 16 lanes as vectors have them: the same in every run.
#[inline(always)]
fn sum_of_both(x: &[f32], y: &[f32], value: impl Fn(f32, f32) -> f32) -> f32 {
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

/// Replaces a row by `value` of it, and gives the sum.
#[inline(always)]
fn sum_of_new(row: &mut [f32], value: impl Fn(f32) -> f32) -> f32 {
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

/// Halves upon halves, which vectors are faster at than at one number after the other.
#[inline(always)]
fn of_lanes(mut lanes: [f32; 16], both: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = both(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// The highest of a row, passing over what is not a number.
#[inline(always)]
fn highest(row: &[f32]) -> f32 {
    highest_of(row, |x| x)
}

/// The largest absolute value of a row, passing over what is not a number.
#[inline(always)]
pub fn largest(row: &[f32]) -> f32 {
    highest_of(row, f32::abs).max(0.0)
}

#[inline(always)]
fn highest_of(row: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = row.chunks_exact(16);
    let last = chunks.remainder().iter().map(|&x| value(x));
    let last = last.fold(f32::NEG_INFINITY, higher);
    for x in chunks {
        for i in 0..16 {
            lanes[i] = higher(lanes[i], value(x[i]));
        }
    }
    higher(of_lanes(lanes, higher), last)
}
