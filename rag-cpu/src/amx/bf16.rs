//! Weights of a linear layer in bf16, packed once.

use rayon::prelude::*;

use super::{
    available::available,
    instructions::Bf16,
    kernel::Output,
    layer::{Layer, rows_of, share_weights},
    scratch::{OWN_TILES, SHARED_TILES, chunk_tiles, chunks, room},
    tile::{PANEL_ROWS, TILE_COLUMNS, TILE_ROWS, Tile, pack, pack_all, tiles_per_panel},
};
use crate::matrix::Matrix;

/// Weights `[d_output, d_input]` in bf16.
pub(crate) struct Bf16Weights {
    tiles: Vec<Tile>,
    d_output: usize,
    d_input: usize,
}

impl Bf16Weights {
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
}

impl Layer for Bf16Weights {
    fn shape(&self) -> [usize; 2] {
        [self.d_output, self.d_input]
    }

    fn rows_per_task(&self) -> usize {
        384
    }

    unsafe fn multiply_rows(&self, x: Matrix<'_>, output: Output<'_>) {
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
            unsafe { output.multiply::<Bf16<1>>((tiles, 0..rows), weights, per_panel) };
        }
        OWN_TILES.set(memory);
    }

    unsafe fn multiply_few(&self, x: Matrix<'_>, output: Output<'_>) {
        let panels_of_x = x.rows().div_ceil(PANEL_ROWS);
        let mut memory = SHARED_TILES.take();
        let all = panels_of_x * tiles_per_panel::<1>(&(0..self.d_input));
        let x_tiles = room(&mut memory, all);
        for columns in chunks(self.d_input) {
            let tiles = &mut x_tiles[chunk_tiles(x.rows(), &columns)];
            pack_all::<1>(x, 0..x.rows(), columns, false, tiles);
        }
        share_weights(self.d_output).for_each(|panels| {
            for columns in chunks(self.d_input) {
                let per_panel = tiles_per_panel::<1>(&columns);
                let weights = &self.tiles[chunk_tiles(self.d_output, &columns)];
                let weights = &weights[panels.start * per_panel..panels.end * per_panel];
                let x_tiles = &x_tiles[chunk_tiles(x.rows(), &columns)];
                let output = output.at_column(columns.start);
                let left = (x_tiles, 0..x.rows());
                let right = (weights, rows_of(&panels, self.d_output));
                // SAFETY: `new` has found the matrix units available; the rest is the caller's promise, of these columns,
                // which are no other task's, and elements are initialised by the first chunk.
                unsafe { output.multiply::<Bf16<1>>(left, right, per_panel) };
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
