//! What matrix units do: numbers packed to tiles, sums of tiles' products, and results put to their places.

// SAFETY, of all that is unsafe here: see the module above; and [`available`] has found what the processor has to have.
#![allow(unsafe_code)]
// What is in registers goes by number: closures are compiled for a processor without its vectors.
#![allow(clippy::needless_range_loop)]

use std::{
    arch::{asm, x86_64::*},
    ops::Range,
    sync::LazyLock,
};

use numkong::cap;

use super::super::product::{Matrix, Start};

/// Rows of a tile, and pairs of numbers in each.
const SIDE: usize = 16;

/// Columns of a matrix that its tiles hold: pairs of those that are `SIDE` apart.
pub const WIDTH: usize = 2 * SIDE;

/// Rows of either matrix that are multiplied at once, two tiles of each.
pub const STRIPE: usize = 2 * SIDE;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile([[u32; SIDE]; SIDE]);

impl Tile {
    pub const ZEROS: Self = Self([[0; SIDE]; SIDE]);
}

#[repr(C, align(64))]
struct Sums([[f32; STRIPE]; STRIPE]);

/// Whether the processor has matrix units.
pub fn available() -> bool {
    static FOUND: LazyLock<bool> = LazyLock::new(|| {
        let amx = numkong::available() & (cap::SAPPHIREAMX | cap::GRANITEAMX) != 0;
        let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        amx && vectors && lent()
    });
    *FOUND
}

/// Asks Linux for the use of tile registers, for the whole process (`arch_prctl`, `ARCH_REQ_XCOMP_PERM`, 18 for
/// `XTILEDATA`). Other systems lend them by themselves.
fn lent() -> bool {
    #[cfg(target_os = "linux")]
    {
        let error: isize;
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") 158_isize => error,
                in("rdi") 0x1023,
                in("rsi") 18,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        error == 0
    }
    #[cfg(not(target_os = "linux"))]
    numkong::configure_thread()
}

/// Tiles for a stripe of these columns.
pub fn tiles_of_stripe<const P: usize>(columns: &Range<usize>) -> usize {
    const { assert!(P == 1 || P == 3) };
    2 * P * columns.len().div_ceil(WIDTH)
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    pub y: *mut f32,
    pub apart: usize,
    pub start: Start<'a>,
    /// Whether rows of what is multiplied from the right are those of the product.
    pub turned: bool,
}

unsafe impl Sync for Output<'_> {}

impl Output<'_> {
    /// From this row on.
    pub fn below(self, row: usize) -> Self {
        let y = self.y.wrapping_add(row * self.apart);
        Self { y, ..self }
    }

    /// For products with columns from here on.
    pub fn from(self, column: usize) -> Self {
        let start = match column {
            0 => self.start,
            _ => Start::Before,
        };
        Self { start, ..self }
    }

    /// Multiplies stripes of these rows.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn multiply<const P: usize>(
        &self,
        (left, left_rows): (&[Tile], Range<usize>),
        (right, right_rows): (&[Tile], Range<usize>),
        of_stripe: usize,
    ) {
        unsafe { configure() };
        let mut sums = Sums([[0.0; STRIPE]; STRIPE]);
        for (i, right) in right.chunks_exact(of_stripe).enumerate() {
            let columns = right_rows.start + i * STRIPE..right_rows.end;
            for (j, left) in left.chunks_exact(of_stripe).enumerate() {
                let rows = left_rows.start + j * STRIPE..left_rows.end;
                unsafe {
                    sum::<P>(left, right, &mut sums);
                    self.put(&sums, rows, columns.clone());
                }
            }
        }
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }

    /// Puts sums to the first of these rows and columns, or columns and rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn put(&self, sums: &Sums, rows: Range<usize>, columns: Range<usize>) {
        for (row, column) in [(0, 0), (0, SIDE), (SIDE, 0), (SIDE, SIDE)] {
            let mut quarter = [_mm512_setzero_si512(); SIDE];
            for i in 0..SIDE {
                quarter[i] =
                    unsafe { _mm512_loadu_si512(sums.0[row + i][column..].as_ptr().cast()) };
            }
            let mut rows = rows.start + row..rows.end;
            let mut columns = columns.start + column..columns.end;
            if self.turned {
                transpose(&mut quarter);
                (rows, columns) = (columns, rows);
            }
            let width = columns.len().min(SIDE);
            if width == 0 {
                continue;
            }
            let mask = (1_u32 << width).wrapping_sub(1) as u16;
            for (row, sums) in rows.zip(quarter) {
                unsafe {
                    let y = self.y.add(row * self.apart + columns.start);
                    let start = match self.start {
                        Start::Nothing => _mm512_setzero_ps(),
                        Start::Row(numbers) => {
                            _mm512_maskz_loadu_ps(mask, numbers.as_ptr().add(columns.start))
                        }
                        Start::Before => _mm512_maskz_loadu_ps(mask, y),
                    };
                    let sums = _mm512_add_ps(_mm512_castsi512_ps(sums), start);
                    _mm512_mask_storeu_ps(y, mask, sums);
                }
            }
        }
    }
}

/// Stripes of these rows.
pub fn pack_all<const P: usize>(
    matrix: Matrix<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    right: bool,
    tiles: &mut [Tile],
) {
    let of_stripe = tiles_of_stripe::<P>(&columns);
    for (i, tiles) in tiles.chunks_exact_mut(of_stripe).enumerate() {
        let rows = rows.start + i * STRIPE..rows.end;
        pack::<P>(matrix, rows, columns.clone(), right, tiles);
    }
}

/// The first stripe of these rows, zeros where they end: for each `WIDTH` columns and each part two tiles, transposed
/// for what is multiplied from the `right`.
pub fn pack<const P: usize>(
    matrix: Matrix<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    right: bool,
    tiles: &mut [Tile],
) {
    for (tiles, first) in (tiles.chunks_exact_mut(2 * P)).zip(columns.clone().step_by(WIDTH)) {
        for half in 0..2 {
            let rows = (rows.start + half * SIDE).min(rows.end)..rows.end;
            let block = matrix.some(rows).transposed().some(first..columns.end);
            unsafe { pack_tiles::<P>(block.transposed(), right, &mut tiles[half..]) };
        }
    }
}

/// The first `SIDE` rows and `WIDTH` columns, to every second tile.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_tiles<const P: usize>(block: Matrix<'_>, right: bool, tiles: &mut [Tile]) {
    let (rows, columns) = (block.rows().min(SIDE), block.columns().min(WIDTH));
    let [row, column] = block.strides;
    let copy;
    let (numbers, [row, column]) = match rows * columns == SIDE * WIDTH {
        true => (block.numbers, [row, column]),
        false => {
            copy = with_zeros(block, [rows, columns]);
            (&copy[..], [WIDTH, 1])
        }
    };
    let by_rows = column == 1;
    for i in 0..SIDE {
        let (first, second) = match by_rows {
            true => (i * row, i * row + SIDE),
            false => (i * column, (i + SIDE) * column),
        };
        let (x, y) = (&numbers[first..][..SIDE], &numbers[second..][..SIDE]);
        let parts: [_; P] =
            unsafe { split(_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(y.as_ptr())) };
        for part in 0..P {
            let row = tiles[2 * part].0[i].as_mut_ptr();
            unsafe { _mm512_store_si512(row.cast(), parts[part]) };
        }
    }
    if by_rows == right {
        for tile in tiles.iter_mut().step_by(2).take(P) {
            let mut rows = [_mm512_setzero_si512(); SIDE];
            for i in 0..SIDE {
                rows[i] = unsafe { _mm512_load_si512(tile.0[i].as_ptr().cast()) };
            }
            transpose(&mut rows);
            for i in 0..SIDE {
                unsafe { _mm512_store_si512(tile.0[i].as_mut_ptr().cast(), rows[i]) };
            }
        }
    }
}

/// A copy of a block that does not fill its tiles.
#[cold]
fn with_zeros(block: Matrix<'_>, [rows, columns]: [usize; 2]) -> [f32; SIDE * WIDTH] {
    let mut copy = [0.0; SIDE * WIDTH];
    let [row, column] = block.strides;
    for i in 0..rows {
        for j in 0..columns {
            copy[i * WIDTH + j] = block.numbers[i * row + j * column];
        }
    }
    copy
}

/// The parts of two numbers side by side. Without its last 16 bits a number is a bf16; what is left of it has as many
/// bits less. One part is rounded.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn split<const P: usize>(mut x: __m512, mut y: __m512) -> [__m512i; P] {
    if P == 1 {
        return [pairs(rounded(x), rounded(y)); P];
    }
    let mut parts = [_mm512_setzero_si512(); P];
    for part in 0..P {
        parts[part] = pairs(x, y);
        (x, y) = (rest(x), rest(y));
    }
    parts
}

/// To the nearest number whose last 16 bits do not count, or to the even one of two.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn rounded(x: __m512) -> __m512 {
    let bits = _mm512_castps_si512(x);
    // What is not a number stays so, whatever its bits.
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    let nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
    let nearest = _mm512_add_epi32(bits, half);
    _mm512_castsi512_ps(_mm512_mask_mov_epi32(nearest, is_nan, nan))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn rest(x: __m512) -> __m512 {
    let part = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(!0xFFFF));
    _mm512_sub_ps(x, _mm512_castsi512_ps(part))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pairs(x: __m512, y: __m512) -> __m512i {
    let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(x));
    _mm512_mask_blend_epi16(0xAAAA_AAAA, low, _mm512_castps_si512(y))
}

/// Rows to columns: of every two numbers, four, eight, and all.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transpose(x: &mut [__m512i; SIDE]) {
    let mut y = *x;
    for i in (0..SIDE).step_by(2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for i in (0..SIDE).step_by(4) {
        for j in 0..2 {
            x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
            x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
        }
    }
    for i in [0, 1, 2, 3, 8, 9, 10, 11] {
        y[i] = _mm512_shuffle_i32x4::<0x88>(x[i], x[i + 4]);
        y[i + 4] = _mm512_shuffle_i32x4::<0xDD>(x[i], x[i + 4]);
    }
    for i in 0..8 {
        x[i] = _mm512_shuffle_i32x4::<0x88>(y[i], y[i + 8]);
        x[i + 8] = _mm512_shuffle_i32x4::<0xDD>(y[i], y[i + 8]);
    }
}

/// Lays out the tile registers: all of them `SIDE` rows of 64 bytes.
unsafe fn configure() {
    #[repr(C, align(64))]
    struct Configuration([u8; 64]);
    let mut configuration = Configuration([0; 64]);
    configuration.0[0] = 1;
    for tile in 0..8 {
        configuration.0[16 + 2 * tile] = 64;
        configuration.0[48 + tile] = SIDE as u8;
    }
    unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(readonly, nostack)) };
}

/// Instructions on tile registers, of which the first four hold a quarter of the sums each; 4 and 5 are for the rows of
/// the left stripe, 6 and 7 for those of the right.
macro_rules! tiled {
    ($left:ident, $right:ident, $sums:ident, $tiles:literal, $($instruction:literal),+ $(,)?) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            $($instruction,)+
            "tilestored [{sums} + {sums_row}], tmm0",
            "tilestored [{sums} + {sums_row} + 64], tmm1",
            "tilestored [{sums} + {sums_row} + 2048], tmm2",
            "tilestored [{sums} + {sums_row} + 2112], tmm3",
            a = inout(reg) $left.as_ptr() => _,
            b = inout(reg) $right.as_ptr() => _,
            steps = inout(reg) $left.len() / $tiles => _,
            sums = in(reg) $sums,
            row = in(reg) size_of::<[u32; SIDE]>(),
            sums_row = in(reg) size_of::<[f32; STRIPE]>(),
            options(nostack),
        )
    };
}

/// The products of a stripe's rows with another's. Of parts they are those of 2·0, 1·0, 1·1, 0·1, 0·2 and 0·0, each with
/// an operand of the one before.
#[inline]
unsafe fn sum<const P: usize>(left: &[Tile], right: &[Tile], sums: &mut Sums) {
    assert!(
        !left.is_empty() && left.len() == right.len(),
        "as many tiles"
    );
    match P {
        1 => unsafe {
            tiled!(
                left,
                right,
                sums,
                2,
                "2:",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 2b",
            );
        },
        _ => unsafe {
            tiled!(
                left,
                right,
                sums,
                6,
                "2:",
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
                "add {a}, 6144",
                "add {b}, 6144",
                "dec {steps}",
                "jnz 2b",
            );
        },
    }
}
