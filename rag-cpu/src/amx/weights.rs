//! Weights of a linear layer in bf16, packed once.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    available::available,
    kernel::Output,
    scratch::{OWN_TILES, SHARED_TILES, chunk_tiles, chunks, room},
    tile::{PANEL_ROWS, TILE_COLUMNS, TILE_ROWS, Tile, pack, pack_all, tiles_per_panel},
};
use crate::matrix::{Initial, Matrix};

/// Rows up to which tasks share the weights instead of the rows.
pub(crate) const ROWS_TO_SHARE_WEIGHTS: usize = 64;

/// Rows of a task: packed, they stay in the second-level cache.
const PACKED_ROWS_PER_TASK: usize = 384;

/// Weights `[d_output, d_input]` in bf16.
pub(crate) struct Weights {
    tiles: Vec<Tile>,
    pub(super) d_output: usize,
    pub(super) d_input: usize,
}

impl Weights {
    /// Packs weights, where the matrix units are [`available`].
    pub fn new(weight: Matrix<'_>) -> Self {
        assert!(available(), "there are no matrix units");
        let (d_output, d_input) = (weight.rows(), weight.columns());
        assert!(d_input > 0, "weights have inputs");
        let mut tiles = Vec::new();
        let all = d_output.div_ceil(PANEL_ROWS) * tiles_per_panel::<1>(&(0..d_input));
        room(&mut tiles, all);
        for columns in chunks(d_input) {
            let per_panel = tiles_per_panel::<1>(&columns);
            let tiles = tiles[chunk_tiles(d_output, &columns)].par_chunks_exact_mut(per_panel);
            tiles.enumerate().for_each(|(i, tiles)| {
                let rows = i * PANEL_ROWS..d_output;
                pack::<1>(weight, rows, columns.clone(), true, tiles);
            });
        }
        Self {
            tiles,
            d_output,
            d_input,
        }
    }

    /// `x Wᵀ + bias`; an empty bias stands for none.
    pub fn multiply(&self, x: Matrix<'_>, bias: &[f32]) -> Vec<f32> {
        assert_eq!(x.columns(), self.d_input, "inputs for these weights");
        let (mut y, output) = self.output(x.rows(), bias);
        // SAFETY: `y` has room for the product, and nobody else has it.
        unsafe {
            match x.rows() <= ROWS_TO_SHARE_WEIGHTS {
                true => self.multiply_few(x, output),
                false => self.multiply_many(x, output),
            }
        }
        // SAFETY: `output` has made room for so many elements, and all of them have been written.
        unsafe { y.set_len(x.rows() * self.d_output) };
        y
    }

    /// The weights as they are multiplied, row after row.
    pub fn unpacked(&self) -> Vec<f32> {
        let mut weight = vec![0.0; self.d_output * self.d_input];
        for columns in chunks(self.d_input) {
            let per_panel = tiles_per_panel::<1>(&columns);
            let tiles = self.tiles[chunk_tiles(self.d_output, &columns)].chunks_exact(per_panel);
            for (panel, tiles) in tiles.enumerate() {
                for row in 0..PANEL_ROWS.min(self.d_output - panel * PANEL_ROWS) {
                    let first = (panel * PANEL_ROWS + row) * self.d_input;
                    for column in columns.clone() {
                        weight[first + column] = number(tiles, row, column - columns.start);
                    }
                }
            }
        }
        weight
    }

    /// Room for the product of so many rows, and where it goes.
    pub(super) fn output<'a>(&self, rows: usize, bias: &'a [f32]) -> (Vec<f32>, Output<'a>) {
        self.check(bias);
        let mut y = Vec::with_capacity(rows * self.d_output);
        let output = Output {
            y: y.as_mut_ptr(),
            stride: self.d_output,
            initial: Initial::bias(bias),
            transposed: false,
        };
        (y, output)
    }

    pub(super) fn check(&self, bias: &[f32]) {
        assert!(
            bias.is_empty() || bias.len() == self.d_output,
            "a bias of {} numbers for {} outputs",
            bias.len(),
            self.d_output
        );
    }

    /// Tasks share the rows.
    ///
    /// # Safety
    /// As for [`Weights::multiply_rows`].
    unsafe fn multiply_many(&self, x: Matrix<'_>, output: Output<'_>) {
        shares(x.rows(), PACKED_ROWS_PER_TASK).for_each(|rows| {
            let (x, output) = (x.row_range(rows.clone()), output.at_row(rows.start));
            // SAFETY: the caller's promise, of these rows, which are no other task's.
            unsafe { self.multiply_rows(x, output) };
        });
    }

    /// Multiplies all rows on this thread.
    ///
    /// # Safety
    /// `output` is valid for writes of `x.rows()` rows of `d_output` elements, which nobody else reads or writes meanwhile,
    /// and is not [`Initial::Previous`] or they are initialised.
    pub(super) unsafe fn multiply_rows(&self, x: Matrix<'_>, output: Output<'_>) {
        let rows = x.rows();
        let mut memory = OWN_TILES.take();
        for columns in chunks(self.d_input) {
            let per_panel = tiles_per_panel::<1>(&columns);
            let tiles = room(&mut memory, rows.div_ceil(PANEL_ROWS) * per_panel);
            pack_all::<1>(x, 0..rows, columns.clone(), false, tiles);
            let output = output.at_column(columns.start);
            let weights = &self.tiles[chunk_tiles(self.d_output, &columns)];
            let weights = (weights, 0..self.d_output);
            // SAFETY: `new` has found the matrix units available; the rest is the caller's promise, and elements are
            // initialised by the first chunk of columns.
            unsafe { output.multiply::<1>((tiles, 0..rows), weights, per_panel) };
        }
        OWN_TILES.set(memory);
    }

    /// Tasks share the weights.
    ///
    /// # Safety
    /// As for [`Weights::multiply_rows`].
    unsafe fn multiply_few(&self, x: Matrix<'_>, output: Output<'_>) {
        let panels_of_x = x.rows().div_ceil(PANEL_ROWS);
        let mut memory = SHARED_TILES.take();
        let all = panels_of_x * tiles_per_panel::<1>(&(0..self.d_input));
        let x_tiles = room(&mut memory, all);
        for columns in chunks(self.d_input) {
            let tiles = &mut x_tiles[chunk_tiles(x.rows(), &columns)];
            pack_all::<1>(x, 0..x.rows(), columns, false, tiles);
        }
        let panels = self.d_output.div_ceil(PANEL_ROWS);
        let tasks = panels.min(4 * rayon::current_num_threads());
        (0..tasks).into_par_iter().for_each(|i| {
            let panels = i * panels / tasks..(i + 1) * panels / tasks;
            let outputs = panels.start * PANEL_ROWS..self.d_output.min(panels.end * PANEL_ROWS);
            for columns in chunks(self.d_input) {
                let per_panel = tiles_per_panel::<1>(&columns);
                let weights = &self.tiles[chunk_tiles(self.d_output, &columns)];
                let weights = &weights[panels.start * per_panel..panels.end * per_panel];
                let x_tiles = &x_tiles[chunk_tiles(x.rows(), &columns)];
                let output = output.at_column(columns.start);
                let (left, right) = ((x_tiles, 0..x.rows()), (weights, outputs.clone()));
                // SAFETY: `new` has found the matrix units available; the rest is the caller's promise, of these columns,
                // which are no other task's, and elements are initialised by the first chunk.
                unsafe { output.multiply::<1>(left, right, per_panel) };
            }
        });
        SHARED_TILES.set(memory);
    }
}

/// A number of a panel that was packed in one part for the right operand: tiles are transposed.
fn number(tiles: &[Tile], row: usize, column: usize) -> f32 {
    let (step, within) = (column / TILE_COLUMNS, column % TILE_COLUMNS);
    let tile = &tiles[2 * step + row / TILE_ROWS];
    let pair = tile.0[within % TILE_ROWS][row % TILE_ROWS];
    f32::from_bits(match within < TILE_ROWS {
        true => pair << 16,
        false => pair & 0xFFFF_0000,
    })
}

/// The rows of tasks, of so many at most, shared evenly among threads.
pub(super) fn shares(rows: usize, most: usize) -> impl ParallelIterator<Item = Range<usize>> {
    let panels = rows.div_ceil(PANEL_ROWS);
    let threads = rayon::current_num_threads();
    let tasks = (rows.div_ceil(most).next_multiple_of(threads)).min(panels);
    (0..tasks).into_par_iter().map(move |i| {
        let [first, end] = [i, i + 1].map(|i| i * panels / tasks * PANEL_ROWS);
        first..end.min(rows)
    })
}
