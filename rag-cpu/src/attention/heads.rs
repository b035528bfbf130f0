//! The operands of attention: queries, keys and values, head by head, wherever they lie.

use burn::backend::flex::FlexTensor;

use crate::{dots::prefetch, processor::Processor, view::View};

const CACHE_LINE_BYTES: usize = 64;

/// Queries `[rows, length, heads · d_head]`, keys and values `[rows, heads, memory length, d_head]`, and the bias.
pub(super) struct Heads {
    pub processor: Processor,
    pub queries: View<3>,
    pub keys: View<4>,
    pub values: View<4>,
    pub bias: Option<Bias>,
    pub scale: f32,
    pub memory_length: usize,
    pub d_head: usize,
}

impl Heads {
    /// The keys or values of a head; those of the `next` head are prefetched while they are read.
    #[inline(always)]
    pub fn rows<'a>(
        &self,
        view: &'a View<4>,
        row: usize,
        head: usize,
        next: Option<usize>,
    ) -> Rows<'a> {
        Rows {
            elements: view.from([row, head, 0, 0]),
            next: match next {
                Some(next) => view.from([row, next, 0, 0]),
                None => &[],
            },
            stride: view.strides[2],
            count: self.memory_length,
            width: self.d_head,
        }
    }
}

/// The bias that is added to the scores, `[rows | 1, heads | 1, period, memory length]`: query i has the bias of `i % period`.
pub(super) struct Bias {
    pub shape: [usize; 4],
    view: View<4>,
}

impl Bias {
    pub fn new(bias: FlexTensor) -> Self {
        let view = View::new(bias);
        Self {
            shape: view.shape(),
            view,
        }
    }

    /// The bias of a query's scores.
    #[inline(always)]
    pub fn of(&self, row: usize, head: usize, query: usize) -> &[f32] {
        self.view.from([row, head, query % self.shape[2], 0])
    }
}

/// Rows of a matrix, `stride` elements apart, and the rows that are read `next`, or none.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub elements: &'a [f32],
    pub next: &'a [f32],
    pub stride: usize,
    pub count: usize,
    pub width: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    pub fn row(self, i: usize) -> &'a [f32] {
        &self.elements[i * self.stride..][..self.width]
    }

    /// Prefetches row i of those that are read next: where the heads of a token lie together, the next row of a head is in
    /// another page of memory, which a processor's own prefetcher does not reach.
    #[inline(always)]
    pub fn prefetch(self, i: usize) {
        if let Some(row) = self.next.get(i * self.stride..) {
            let elements = row.iter().take(self.width);
            elements
                .step_by(CACHE_LINE_BYTES / size_of::<f32>())
                .for_each(prefetch);
        }
    }
}

/// Tasks of a row, so that there are enough for all threads.
pub(super) fn tasks_per_row(rows: usize) -> usize {
    (4 * rayon::current_num_threads()).div_ceil(rows)
}
