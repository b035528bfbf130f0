//! Weights of a linear layer in int8, packed once: products of integers from -127 to 127, with exact sums in i32, times the
//! scales of the row and of the output.
//!
//! A tile of the left operand has 64 consecutive inputs of 16 rows. A tile of the right operand is such a tile transposed as
//! groups of four inputs: 16 outputs of each group.

use rayon::prelude::*;

use super::{
    available::int8_available,
    instructions::Int8,
    kernel::{Output, Scales},
    layer::{Layer, rows_of, share_weights},
    scratch::{OWN_TILES, SHARED_TILES, room},
    tile::{PANEL_ROWS, TILE_ROWS, Tile},
};
use crate::{
    matrix::Matrix,
    processor::Processor,
    quantise::{MOST_INPUTS, quantise},
};

/// Columns of a matrix that its tiles hold: the bytes of a row.
const TILE_COLUMNS: usize = 4 * TILE_ROWS;

/// Bytes of a task's packed rows at most: with a panel of the weights they stay in the second-level cache.
const PACKED_BYTES_PER_TASK: usize = 768 << 10;

/// Weights `[d_output, d_input]` in int8.
///
/// A panel has all inputs, so that sums are only stored when they are complete.
pub(crate) struct Int8Weights {
    tiles: Vec<Tile>,
    /// Of each output.
    scales: Vec<f32>,
    d_input: usize,
}

impl Int8Weights {
    /// Rounds and packs weights, where the matrix units are [`available`](int8_available) for int8.
    ///
    /// # Panics
    /// With no inputs, or more than [`MOST_INPUTS`], whose sums may not be an i32.
    pub fn new(weight: Matrix<'_>) -> Self {
        assert!(int8_available(), "there are no matrix units for int8");
        let (d_output, d_input) = (weight.rows(), weight.columns());
        assert!(d_input > 0, "weights have inputs");
        assert!(
            d_input <= MOST_INPUTS,
            "{d_input} inputs are too many for sums in i32"
        );
        let mut tiles = Vec::new();
        room(
            &mut tiles,
            d_output.div_ceil(PANEL_ROWS) * tiles_per_panel(d_input),
        );
        let mut scales = vec![0.0; d_output];
        pack_all(weight, &mut tiles, &mut scales);
        tiles.par_iter_mut().for_each(|tile| {
            // SAFETY: `int8_available` has found AVX-512 F and BW.
            unsafe { tile.transpose() };
        });
        Self {
            tiles,
            scales,
            d_input,
        }
    }

    /// The weights as they are multiplied, row after row: integers times the scale of their output.
    pub fn unpacked(&self) -> Vec<f32> {
        let per_panel = tiles_per_panel(self.d_input);
        let numbers = self.scales.iter().enumerate().flat_map(|(output, scale)| {
            let tiles = &self.tiles[output / PANEL_ROWS * per_panel..][..per_panel];
            let half = output % PANEL_ROWS / TILE_ROWS;
            (0..self.d_input).map(move |input| {
                let (step, within) = (input / TILE_COLUMNS, input % TILE_COLUMNS);
                let group = tiles[2 * step + half].0[within / 4][output % TILE_ROWS];
                f32::from(group.to_le_bytes()[within % 4].cast_signed()) * scale
            })
        });
        numbers.collect()
    }

    /// The same output, of sums that are multiplied with these scales of rows and with those of the weights.
    fn scaled<'a>(&'a self, output: Output<'a>, rows: &'a [f32]) -> Output<'a> {
        let columns = &self.scales[..];
        Output {
            scales: Some(Scales { rows, columns }),
            ..output
        }
    }
}

impl Layer for Int8Weights {
    fn shape(&self) -> [usize; 2] {
        [self.scales.len(), self.d_input]
    }

    fn rows_per_task(&self) -> usize {
        let bytes_per_row = self.d_input.next_multiple_of(TILE_COLUMNS);
        (PACKED_BYTES_PER_TASK / bytes_per_row).max(2 * PANEL_ROWS)
    }

    unsafe fn multiply_rows(&self, x: Matrix<'_>, output: Output<'_>) {
        let (rows, per_panel) = (x.rows(), tiles_per_panel(self.d_input));
        let mut memory = OWN_TILES.take();
        let tiles = room(&mut memory, rows.div_ceil(PANEL_ROWS) * per_panel);
        let mut row_scales = vec![0.0; rows];
        let panels = tiles.chunks_exact_mut(per_panel);
        let panels = panels.zip(row_scales.chunks_mut(PANEL_ROWS));
        for (i, (tiles, scales)) in panels.enumerate() {
            pack(x.row_range(i * PANEL_ROWS..rows), tiles, scales);
        }
        let output = self.scaled(output, &row_scales);
        let weights = (&self.tiles[..], 0..self.scales.len());
        // SAFETY: `new` has found the matrix units available; the rest is the caller's promise, and there is a scale for each
        // row and each output.
        unsafe { output.multiply::<Int8>((tiles, 0..rows), weights, per_panel) };
        OWN_TILES.set(memory);
    }

    unsafe fn multiply_few(&self, x: Matrix<'_>, output: Output<'_>) {
        let (rows, per_panel) = (x.rows(), tiles_per_panel(self.d_input));
        let mut memory = SHARED_TILES.take();
        let tiles = room(&mut memory, rows.div_ceil(PANEL_ROWS) * per_panel);
        let mut row_scales = vec![0.0; rows];
        pack_all(x, tiles, &mut row_scales);
        let (tiles, output) = (&*tiles, self.scaled(output, &row_scales));
        share_weights(self.scales.len()).for_each(|panels| {
            let weights = &self.tiles[panels.start * per_panel..panels.end * per_panel];
            let right = (weights, rows_of(&panels, self.scales.len()));
            // SAFETY: `new` has found the matrix units available; the rest is the caller's promise, of these columns, which are
            // no other task's, and there is a scale for each row and each output.
            unsafe { output.multiply::<Int8>((tiles, 0..rows), right, per_panel) };
        });
        SHARED_TILES.set(memory);
    }
}

/// Tiles of a panel of so many columns: two for each `TILE_COLUMNS`.
fn tiles_per_panel(columns: usize) -> usize {
    2 * columns.div_ceil(TILE_COLUMNS)
}

/// Packs all rows on all threads.
fn pack_all(matrix: Matrix<'_>, tiles: &mut [Tile], scales: &mut [f32]) {
    let panels = tiles.par_chunks_exact_mut(tiles_per_panel(matrix.columns()));
    let panels = panels.zip(scales.par_chunks_mut(PANEL_ROWS));
    panels.enumerate().for_each(|(i, (tiles, scales))| {
        let rows = i * PANEL_ROWS..matrix.rows();
        pack(matrix.row_range(rows), tiles, scales);
    });
}

/// Rounds the first panel of these rows, and packs it as the left operand, with zeros where rows or columns end. There is a
/// scale for each row that the matrix has.
fn pack(matrix: Matrix<'_>, tiles: &mut [Tile], scales: &mut [f32]) {
    let [row_stride, column_stride] = matrix.strides;
    assert_eq!(column_stride, 1, "rows without gaps");
    let mut integers = vec![0_i8; matrix.columns().next_multiple_of(TILE_COLUMNS)];
    for row in 0..PANEL_ROWS {
        match scales.get_mut(row) {
            Some(scale) => {
                let numbers = &matrix.elements[row * row_stride..][..matrix.columns()];
                *scale = quantise(Processor::Amx, numbers, &mut integers);
            }
            None => integers.fill(0),
        }
        let integers = integers.chunks_exact(TILE_COLUMNS);
        for (tiles, integers) in tiles.chunks_exact_mut(2).zip(integers) {
            let row = &mut tiles[row / TILE_ROWS].0[row % TILE_ROWS];
            bytemuck::cast_slice_mut(row).copy_from_slice(integers);
        }
    }
}
