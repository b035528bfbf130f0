//! Weights of a linear layer in int8, packed once: products of integers from -127 to 127, with exact sums in i32, times the
//! scales of the row and of the output.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    available::available,
    kernel::{Sums, multiply_integers},
    tile::{PANEL_ROWS, TILE_ROWS, Tile},
    weights::{ROWS_TO_SHARE_WEIGHTS, shares},
};
use crate::{processor::Processor, quantise::quantise};

/// Columns of a matrix that its tiles hold: rows of 64 bytes.
const TILE_COLUMNS: usize = 4 * TILE_ROWS;

/// Rows of a task: packed, they stay in the second-level cache.
const PACKED_ROWS_PER_TASK: usize = 256;

/// Inputs of a weight at most. So many products of 127 and 127 are below 2³¹.
const MOST_INPUTS: usize = i32::MAX as usize / (127 * 127);

/// Weights `[d_output, d_input]`.
pub(crate) struct Int8Weights {
    tiles: Vec<Tile>,
    /// Of each output.
    scales: Vec<f32>,
    d_input: usize,
}

/// Rows of integers in panels, and the scale of each row.
struct Packed {
    tiles: Vec<Tile>,
    scales: Vec<f32>,
}

impl Int8Weights {
    /// Rounds and packs `weight`, row after row, where the matrix units are [`available`].
    pub fn new(processor: Processor, weight: &[f32], d_input: usize) -> Self {
        assert!(available(), "there are no matrix units");
        assert!(
            (1..=MOST_INPUTS).contains(&d_input),
            "{d_input} inputs, of 1 to {MOST_INPUTS}"
        );
        let Packed { mut tiles, scales } = pack(processor, weight, d_input);
        tiles.par_iter_mut().for_each(transpose);
        Self {
            tiles,
            scales,
            d_input,
        }
    }

    /// `x Wᵀ + bias`, `[rows, d_input]` to `[rows, d_output]`.
    pub fn multiply(&self, processor: Processor, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let (rows, d_output) = (x.len() / self.d_input, self.scales.len());
        assert_eq!(x.len(), rows * self.d_input, "whole rows");
        if let Some(bias) = bias {
            assert_eq!(bias.len(), d_output, "a number for each output");
        }
        let mut y = vec![0.0; rows * d_output];
        if rows <= ROWS_TO_SHARE_WEIGHTS {
            let x = pack(processor, x, self.d_input);
            let panels = d_output.div_ceil(PANEL_ROWS);
            let tasks = panels.min(4 * rayon::current_num_threads());
            let parts: Vec<_> = (0..tasks)
                .into_par_iter()
                .map(|i| {
                    let panels = i * panels / tasks..(i + 1) * panels / tasks;
                    let outputs = panels.start * PANEL_ROWS..d_output.min(panels.end * PANEL_ROWS);
                    let mut part = vec![0.0; rows * outputs.len()];
                    self.multiply_packed(&x, outputs.clone(), bias, &mut part);
                    (outputs, part)
                })
                .collect();
            for (outputs, part) in parts {
                let rows = y.chunks_exact_mut(d_output);
                for (y, part) in rows.zip(part.chunks_exact(outputs.len())) {
                    y[outputs.clone()].copy_from_slice(part);
                }
            }
        } else {
            let mut rest = &mut y[..];
            let tasks: Vec<_> = shares(rows, PACKED_ROWS_PER_TASK)
                .collect::<Vec<_>>()
                .into_iter()
                .map(|rows| {
                    let (y, others) = std::mem::take(&mut rest).split_at_mut(rows.len() * d_output);
                    rest = others;
                    (rows, y)
                })
                .collect();
            tasks.into_par_iter().for_each(|(rows, y)| {
                let x = &x[rows.start * self.d_input..rows.end * self.d_input];
                let x = pack(processor, x, self.d_input);
                self.multiply_packed(&x, 0..d_output, bias, y);
            });
        }
        y
    }

    /// Computes some outputs, whose first is that of a panel, of all rows of `x` on this thread: `y` is `[rows, outputs]`.
    fn multiply_packed(
        &self,
        x: &Packed,
        outputs: Range<usize>,
        bias: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let per_panel = tiles_per_panel(self.d_input);
        let panels = outputs.start / PANEL_ROWS..outputs.end.div_ceil(PANEL_ROWS);
        let weights = &self.tiles[panels.start * per_panel..panels.end * per_panel];
        let scales = &self.scales[outputs.clone()];
        let bias = bias.map(|bias| &bias[outputs.clone()]);
        // SAFETY: `new` has found the matrix units available, and AVX-512 with them.
        unsafe {
            multiply_integers(
                &x.tiles,
                weights,
                per_panel,
                #[inline(always)]
                |[row, column]: [usize; 2], sums: &Sums| {
                    let first_column = column * PANEL_ROWS;
                    let rows = y.chunks_exact_mut(outputs.len()).zip(&x.scales);
                    let rows = rows.skip(row * PANEL_ROWS).zip(&sums.0);
                    for ((y, row_scale), sums) in rows {
                        let y = y[first_column..].iter_mut();
                        for ((y, sum), scale) in y.zip(sums).zip(&scales[first_column..]) {
                            *y = sum.to_bits().cast_signed() as f32 * (row_scale * scale);
                        }
                    }
                },
            );
        }
        if let Some(bias) = bias {
            for y in y.chunks_exact_mut(outputs.len()) {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
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
                let quad = tiles[2 * step + half].0[within / 4][output % TILE_ROWS];
                f32::from(quad.to_le_bytes()[within % 4] as i8) * scale
            })
        });
        numbers.collect()
    }
}

/// Tiles of a panel of so many columns: two for each `TILE_COLUMNS`.
fn tiles_per_panel(columns: usize) -> usize {
    2 * columns.div_ceil(TILE_COLUMNS)
}

/// Rounds rows of `width` numbers, and packs them as the left operand.
fn pack(processor: Processor, numbers: &[f32], width: usize) -> Packed {
    let rows = numbers.len() / width;
    let per_panel = tiles_per_panel(width);
    let mut tiles = vec![Tile::ZEROS; rows.div_ceil(PANEL_ROWS) * per_panel];
    let mut scales = vec![0.0; rows];
    let panels = tiles.par_chunks_exact_mut(per_panel);
    let panels = panels.zip(numbers.par_chunks(PANEL_ROWS * width));
    let panels = panels.zip(scales.par_chunks_mut(PANEL_ROWS));
    let integers = || vec![0_i8; per_panel / 2 * TILE_COLUMNS];
    panels.for_each_init(integers, |integers, ((tiles, rows), scales)| {
        for (row, (numbers, scale)) in rows.chunks_exact(width).zip(scales).enumerate() {
            *scale = processor.run(
                #[inline(always)]
                || quantise(numbers, integers),
            );
            for (tiles, integers) in tiles.chunks_exact_mut(2).zip(integers.as_chunks().0) {
                tiles[row / TILE_ROWS].0[row % TILE_ROWS] = quads(integers);
            }
        }
    });
    Packed { tiles, scales }
}

/// The integers of a row of a tile, four in each number.
#[inline(always)]
fn quads(integers: &[i8; TILE_COLUMNS]) -> [u32; TILE_ROWS] {
    std::array::from_fn(|i| {
        let four: [i8; 4] = std::array::from_fn(|j| integers[4 * i + j]);
        u32::from_le_bytes(four.map(i8::cast_unsigned))
    })
}

/// Turns a tile of the left operand into one of the right.
fn transpose(tile: &mut Tile) {
    let before = *tile;
    for (i, row) in tile.0.iter_mut().enumerate() {
        for (j, quad) in row.iter_mut().enumerate() {
            *quad = before.0[j][i];
        }
    }
}
