//! The instructions on tile registers.

use std::arch::{asm, x86_64::*};

use super::tile::{PANEL_ROWS, TILE_ROWS, Tile};

#[cfg(test)]
use super::{available::emulated, emulation};

/// The sums of the products of two panels: the bits of an f32 or i32 each.
#[repr(C, align(64))]
pub(super) struct Sums(pub [[u32; PANEL_ROWS]; PANEL_ROWS]);

impl Sums {
    pub const ZEROS: Self = Self([[0; PANEL_ROWS]; PANEL_ROWS]);
}

/// The numbers that tiles hold.
pub(super) trait Numbers {
    /// Computes the inner products of a panel's rows with another's.
    ///
    /// # Safety
    /// The processor has the matrix units for these numbers, which the system lends to this process, and [`configure`] has
    /// laid out this thread's tile registers.
    unsafe fn sum(left: &[Tile], right: &[Tile], sums: &mut Sums);

    /// 16 sums as f32.
    ///
    /// # Safety
    /// The processor has AVX-512 F.
    unsafe fn floats(sums: __m512i) -> __m512;
}

/// Numbers in so many parts of bf16, 1 or 3, whose sums are f32.
pub(super) struct Bf16<const PARTS: usize>;

/// Integers of 8 bits, whose sums are i32.
pub(super) struct Int8;

/// Lays out this thread's tile registers: all of them `TILE_ROWS` rows of 64 bytes.
///
/// # Safety
/// The processor has AMX, and the system lends it to this process.
pub(super) unsafe fn configure() {
    #[repr(C, align(64))]
    struct Configuration([u8; 64]);
    #[cfg(test)]
    if emulated() {
        return;
    }
    let mut configuration = Configuration([0; 64]);
    configuration.0[0] = 1;
    for tile in 0..8 {
        configuration.0[16 + 2 * tile] = 64;
        configuration.0[48 + tile] = TILE_ROWS as u8;
    }
    // SAFETY: the caller's promise; the instruction reads the 64 bytes of the configuration, which palette 1 allows.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(readonly, nostack)) };
}

/// Gives this thread's tile registers back.
///
/// # Safety
/// The processor has AMX, and the system lends it to this process. Nobody reads the registers after this.
pub(super) unsafe fn release() {
    #[cfg(test)]
    if emulated() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nomem, nostack)) };
}

/// Steps over `$tiles` tiles of either panel, at `{a}` and `{b}`, with these instructions. The first four registers accumulate
/// a quarter of the sums each; 4 and 5 are for the rows of the left panel, 6 and 7 for those of the right.
macro_rules! tiled {
    ($left:ident, $right:ident, $sums:ident, $tiles:literal, $($instruction:expr),+ $(,)?) => {{
        assert!(
            $left.len() == $right.len() && $left.len().is_multiple_of($tiles) && !$left.is_empty(),
            "panels of as many tiles"
        );
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            $($instruction,)+
            "add {a}, {step}",
            "add {b}, {step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {sums_row}], tmm0",
            "tilestored [{sums} + {sums_row} + 64], tmm1",
            "tilestored [{sums} + {sums_row} + 2048], tmm2",
            "tilestored [{sums} + {sums_row} + 2112], tmm3",
            a = inout(reg) $left.as_ptr() => _,
            b = inout(reg) $right.as_ptr() => _,
            steps = inout(reg) $left.len() / $tiles => _,
            step = const $tiles * size_of::<Tile>(),
            sums = in(reg) $sums,
            row = in(reg) size_of::<[u32; TILE_ROWS]>(),
            sums_row = in(reg) size_of::<[u32; PANEL_ROWS]>(),
            options(nostack),
        )
    }};
}

/// Multiplies two tiles of either panel a step by an instruction.
macro_rules! in_one_part {
    ($left:ident, $right:ident, $sums:ident, $multiply:literal) => {
        tiled!(
            $left,
            $right,
            $sums,
            2,
            "tileloadd tmm4, [{a} + {row}]",
            "tileloadd tmm6, [{b} + {row}]",
            concat!($multiply, " tmm0, tmm4, tmm6"),
            "tileloadd tmm7, [{b} + {row} + 1024]",
            concat!($multiply, " tmm1, tmm4, tmm7"),
            "tileloadd tmm5, [{a} + {row} + 1024]",
            concat!($multiply, " tmm2, tmm5, tmm6"),
            concat!($multiply, " tmm3, tmm5, tmm7"),
        )
    };
}

impl<const PARTS: usize> Numbers for Bf16<PARTS> {
    /// Of three parts, the products of 2·0, 1·0, 1·1, 0·1, 0·2 and 0·0 are summed, in an order in which each has an operand of
    /// the one before.
    #[inline]
    unsafe fn sum(left: &[Tile], right: &[Tile], sums: &mut Sums) {
        const { assert!(PARTS == 1 || PARTS == 3) };
        #[cfg(test)]
        if emulated() {
            return emulation::sum_bf16::<PARTS>(left, right, sums);
        }
        match PARTS {
            // SAFETY: the caller's promise, and: each of the `len / 2` steps loads the two tiles of either panel that it then
            // steps over; the sums have room for the four tiles that are stored.
            1 => unsafe { in_one_part!(left, right, sums, "tdpbf16ps") },
            // SAFETY: the same, with six tiles of either panel a step.
            _ => unsafe {
                tiled!(
                    left,
                    right,
                    sums,
                    6,
                    "tileloadd tmm4, [{a} + {row} + 4096]",
                    "tileloadd tmm6, [{b} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b} + {row} + 1024]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{a} + {row} + 5120]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm4, [{a} + {row} + 2048]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{a} + {row} + 3072]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm6, [{b} + {row} + 2048]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tileloadd tmm7, [{b} + {row} + 3072]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm4, [{a} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{a} + {row} + 1024]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm6, [{b} + {row} + 4096]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tileloadd tmm7, [{b} + {row} + 5120]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm6, [{b} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tileloadd tmm7, [{b} + {row} + 1024]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                );
            },
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn floats(sums: __m512i) -> __m512 {
        _mm512_castsi512_ps(sums)
    }
}

impl Numbers for Int8 {
    #[inline]
    unsafe fn sum(left: &[Tile], right: &[Tile], sums: &mut Sums) {
        #[cfg(test)]
        if emulated() {
            return emulation::sum_int8(left, right, sums);
        }
        // SAFETY: as for one part of bf16.
        unsafe { in_one_part!(left, right, sums, "tdpbssd") }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn floats(sums: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(sums)
    }
}
