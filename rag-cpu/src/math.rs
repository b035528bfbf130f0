//! Scalar functions that compile to vectors when they are inlined into a kernel.

/// Zero for what is too small to count. A document that the answer does not follow from has a gradient of e⁻⁸⁰ and
/// less; numbers below 1e-38 lose digits, and processors take a hundred times longer to multiply them. Of a gradient
/// below 1e-30 an optimiser sees nothing, its square being 0.
#[inline(always)]
pub(crate) fn flushed(x: f32) -> f32 {
    if x.abs() < 1e-30 { 0.0 } else { x }
}

/// A hash of 32 bits (MurmurHash3's finalizer): every bit of the result depends on every bit of `x`.
#[inline(always)]
pub(crate) fn hashed(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85EB_CA6B);
    x ^= x >> 13;
    x = x.wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

/// a b + c, rounded once: an instruction with AVX2, AVX-512 or Neon, and a call, slow, on other processors.
#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// Φ(x) and φ(x) of the standard normal distribution: Abramowitz and Stegun 26.2.17, off by 7.5e-8 at most.
#[inline(always)]
pub(crate) fn normal(x: f32) -> (f32, f32) {
    let density = exp(-0.5 * x * x) * 0.398_942_3;
    let t = 1.0 / fma(0.231_641_9, x.abs(), 1.0);
    let series = fma(t, fma(t, 1.330_274_5, -1.821_255_9), 1.781_477_9);
    let tail = density * t * fma(t, fma(t, series, -0.356_563_78), 0.319_381_54);
    (if x > 0.0 { 1.0 - tail } else { tail }, density)
}

/// eˣ of x ≤ 0, to the last bits: 2ⁿ eʳ with |r| ≤ ln 2 / 2. 0 where f32 has no normal number.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
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
