use std::collections::HashMap;

use ndarray::Array2;
use rag_core::Passage;

use super::position;
use crate::{
    encoder::Embedder,
    error::Result,
    index::{Rows, Storage},
    knowledge::{Changes, Fingerprint, KnowledgeBase, check, check_width, embed},
};

/// Passages that are written in one transaction.
const WRITTEN: usize = 1024;

/// Where passages are written.
pub(super) trait Table {
    fn encoder(&self) -> &Fingerprint;
    fn dimension(&self) -> usize;
    fn storage(&self) -> Storage;

    /// The positions of those of `ids` that are there.
    fn positions_of(&self, ids: &[&str]) -> Result<HashMap<String, usize>>;

    /// Writes passages, each with its position and its vector, in the place of those of the same ids: all
    /// of them or none.
    fn write(&self, passages: &[(usize, Passage)], vectors: &Array2<f32>) -> Result<()>;
}

/// Writes those of `passages` that are new or have changed, some at a time; `progress` hears how many are
/// done.
pub(super) fn upsert(
    table: &impl Table,
    passages: impl IntoIterator<Item = Passage>,
    encoder: &(impl Embedder + ?Sized),
    mut progress: impl FnMut(usize),
) -> Result<Changes> {
    table.encoder().check(&encoder.fingerprint()?)?;
    let mut changes = Changes::default();
    let mut done = 0;
    let mut passages = passages.into_iter();
    loop {
        let some: Vec<Passage> = passages.by_ref().take(WRITTEN).collect();
        if some.is_empty() {
            return Ok(changes);
        }
        check(&some)?;
        let count = some.len();
        let fresh = fresh(table, some, &mut changes)?;
        if !fresh.is_empty() {
            let texts: Vec<Passage> = fresh.iter().map(|(_, passage)| passage.clone()).collect();
            let vectors = embed(&texts, encoder, &mut |some| progress(done + some))?;
            write(table, &fresh, &vectors)?;
            changes.embedded += fresh.len();
        }
        done += count;
        progress(done);
    }
}

/// Writes what a knowledge base holds, with the vectors that it has.
pub(super) fn import(
    table: &impl Table,
    knowledge: &KnowledgeBase,
    mut progress: impl FnMut(usize),
) -> Result<Changes> {
    table.encoder().check(&knowledge.manifest().encoder)?;
    let mut changes = Changes::default();
    for first in (0..knowledge.len()).step_by(WRITTEN) {
        let positions = first..(first + WRITTEN).min(knowledge.len());
        let some = (positions.clone())
            .map(|at| knowledge.passage(at))
            .collect::<Result<Vec<_>>>()?;
        let places: HashMap<String, usize> = (some.iter().zip(positions.clone()))
            .map(|(passage, at)| (passage.id.clone(), at))
            .collect();
        let fresh = fresh(table, some, &mut changes)?;
        let rows: Vec<usize> = fresh.iter().map(|(_, new)| places[&new.id]).collect();
        if !rows.is_empty() {
            write(table, &fresh, &knowledge.index().gather(&rows))?;
        }
        progress(positions.end);
    }
    Ok(changes)
}

/// Those of `passages` that are not there as they are, with their positions.
fn fresh(
    table: &impl Table,
    passages: Vec<Passage>,
    changes: &mut Changes,
) -> Result<Vec<(usize, Passage)>> {
    let ids: Vec<&str> = passages.iter().map(|passage| &passage.id[..]).collect();
    let there = table.positions_of(&ids)?;
    let mut fresh = Vec::new();
    for passage in passages {
        let position = position(&passage);
        match there.get(&passage.id) {
            Some(&old) if old == position => changes.unchanged += 1,
            old => {
                match old {
                    Some(_) => changes.changed += 1,
                    None => changes.added += 1,
                }
                fresh.push((position, passage));
            }
        }
    }
    Ok(fresh)
}

fn write(table: &impl Table, passages: &[(usize, Passage)], vectors: &Array2<f32>) -> Result<()> {
    check_width(vectors, table.dimension())?;
    // Refuses what could not be stored.
    Rows::new(vectors.clone(), table.storage())?;
    table.write(passages, vectors)
}
