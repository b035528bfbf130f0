//! Memory for tiles that threads keep from one product to the next, and which columns are packed at a time.

use std::{cell::Cell, ops::Range};

use super::tile::{PANEL_ROWS, Tile, tiles_per_panel};

/// Columns whose products are summed up before they are added to others.
const COLUMNS_PER_CHUNK: usize = 1024;

thread_local! {
    /// Tiles of the matrix that all tasks of a product read.
    pub(super) static SHARED_TILES: Cell<Vec<Tile>> = const { Cell::new(Vec::new()) };
    /// Tiles that only this thread's task reads.
    pub(super) static OWN_TILES: Cell<Vec<Tile>> = const { Cell::new(Vec::new()) };
}

/// The first tiles of a memory, which grows to have so many.
pub(super) fn room(memory: &mut Vec<Tile>, tiles: usize) -> &mut [Tile] {
    if memory.len() < tiles {
        memory.resize(tiles, Tile::ZEROS);
    }
    &mut memory[..tiles]
}

/// The columns that are summed up at a time.
pub(super) fn chunks(columns: usize) -> impl Iterator<Item = Range<usize>> {
    let firsts = (0..columns).step_by(COLUMNS_PER_CHUNK);
    firsts.map(move |first| first..columns.min(first + COLUMNS_PER_CHUNK))
}

/// Where the tiles of a chunk of columns are, in one part, after those of the chunks before.
pub(super) fn chunk_tiles(rows: usize, columns: &Range<usize>) -> Range<usize> {
    let panels = rows.div_ceil(PANEL_ROWS);
    let before = panels * tiles_per_panel::<1>(&(0..columns.start));
    before..before + panels * tiles_per_panel::<1>(columns)
}
