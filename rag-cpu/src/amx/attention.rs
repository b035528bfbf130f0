//! Attention of one head on the matrix units.

use super::{
    available::available,
    instructions::Bf16,
    kernel::Output,
    scratch::{OWN_TILES, room},
    tile::{PANEL_ROWS, TILE_COLUMNS, pack, pack_all, tiles_per_panel},
};
use crate::matrix::{Initial, Matrix};

/// Multiplies the weights that `weigh` makes of the scores Q Kᵀ with V, of `queries` `[length, d]`, `keys` and `values`
/// `[memory length, d]`, into `y`, whose rows are `stride` apart.
///
/// `weigh` is given the index of the first of some queries, and their scores in rows that are [`score_stride`] apart; it
/// replaces them by weights, with 0 after the last key.
pub(crate) fn attend<const P: usize>(
    [queries, keys, values]: [Matrix<'_>; 3],
    weigh: impl Fn(usize, &mut [f32]),
    y: &mut [f32],
    stride: usize,
) {
    let (length, memory, d) = (queries.rows(), keys.rows(), queries.columns());
    assert_eq!(
        [keys.columns(), values.columns()],
        [d, d],
        "heads of a size"
    );
    assert_eq!(values.rows(), memory, "a value for each key");
    assert!(available(), "there are no matrix units");
    assert!(d <= stride && y.len() >= length.saturating_sub(1) * stride + d);
    let (of_d, of_memory) = (
        tiles_per_panel::<P>(&(0..d)),
        tiles_per_panel::<P>(&(0..memory)),
    );
    let (key_tiles, value_tiles) = (
        memory.div_ceil(PANEL_ROWS) * of_d,
        d.div_ceil(PANEL_ROWS) * of_memory,
    );
    let mut tiles = OWN_TILES.take();
    let all = room(&mut tiles, key_tiles + value_tiles + of_d + of_memory);
    let (key_tiles, all) = all.split_at_mut(key_tiles);
    let (value_tiles, all) = all.split_at_mut(value_tiles);
    let (query_tiles, weight_tiles) = all.split_at_mut(of_d);
    pack_all::<P>(keys, 0..memory, 0..d, true, key_tiles);
    pack_all::<P>(values.transposed(), 0..d, 0..memory, true, value_tiles);
    let row = score_stride(memory);
    let mut scores = vec![0.0; PANEL_ROWS.min(length) * row];
    for first in (0..length).step_by(PANEL_ROWS) {
        let count = PANEL_ROWS.min(length - first);
        let scores = &mut scores[..count * row];
        let output = |y, stride| Output {
            y,
            stride,
            scales: None,
            initial: Initial::Zero,
            transposed: false,
        };
        pack::<P>(queries, first..length, 0..d, false, query_tiles);
        let (left, right) = ((&*query_tiles, 0..count), (&*key_tiles, 0..memory));
        // SAFETY: the matrix units are available; the scores have room for a row of whole tiles of keys for each query.
        unsafe { output(scores.as_mut_ptr(), row).multiply::<Bf16<P>>(left, right, of_d) };
        weigh(first, scores);
        let weights = Matrix::new(scores, [count, row]);
        pack::<P>(weights, 0..count, 0..row, false, weight_tiles);
        let (left, right) = ((&*weight_tiles, 0..count), (&*value_tiles, 0..d));
        let y = y[first * stride..].as_mut_ptr();
        // SAFETY: the matrix units are available; `y` has been checked to have room for `d` elements of each query.
        unsafe { output(y, stride).multiply::<Bf16<P>>(left, right, of_memory) };
    }
    OWN_TILES.set(tiles);
}

/// Elements from a row of scores of so many keys to the next: whole tiles.
pub(crate) fn score_stride(memory: usize) -> usize {
    memory.next_multiple_of(TILE_COLUMNS)
}
