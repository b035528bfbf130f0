//! A tensor of a GGUF file, dequantized on request.

use std::{fmt, ops::Range, thread};

use bytes::Bytes;

use super::{blocks::dequantize, tensor_type::TensorType};

/// Fewest elements for each thread: with fewer, starting a thread takes longer than it saves.
const ELEMENTS_PER_THREAD: usize = 1 << 18;

/// A tensor under transformers' name. Its blocks stay in the file until they are read.
#[derive(Clone)]
pub struct Weight {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: TensorType,
    pub(super) bytes: Bytes,
    /// Rows of a head, if llama.cpp's converter has interleaved the two halves of each head.
    pub(super) interleaved: Option<usize>,
    /// Added to each element: −1 for Gemma's norms, to which the converter has added 1.
    pub(super) shift: f32,
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f.debug_struct("Weight"))
            .field("name", &self.name)
            .field("shape", &self.shape)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Weight {
    /// The tensor's name in transformers, `model.layers.0.self_attn.q_proj.weight` for instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape in transformers, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How the file stores the elements.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// Number of rows, as [`Weight::read_rows`] counts them. A vector is one row; where the file interleaves the
    /// heads, each of its elements is a row.
    pub fn rows(&self) -> usize {
        self.shape.iter().product::<usize>() / self.columns()
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        match (&self.shape[..], self.interleaved) {
            ([_], Some(_)) => 1,
            (shape, _) => shape.last().copied().unwrap_or(1),
        }
    }

    /// Dequantizes some rows into `out`, `[rows, columns]`, in the calling thread.
    ///
    /// # Panics
    /// If the tensor has fewer rows, or `out` another length.
    pub fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        let columns = self.columns();
        assert_eq!(out.len(), rows.len() * columns, "numbers of {rows:?}");
        let row = columns / self.kind.elements() * self.kind.bytes();
        match self.interleaved {
            None => {
                let bytes = &self.bytes[rows.start * row..rows.end * row];
                dequantize(self.kind, bytes, out);
            }
            Some(head) => {
                for (r, out) in rows.zip(out.chunks_exact_mut(columns)) {
                    let bytes = &self.bytes[interleaved_row(r, head) * row..][..row];
                    dequantize(self.kind, bytes, out);
                }
            }
        }
        if self.shift != 0.0 {
            out.iter_mut().for_each(|number| *number += self.shift);
        }
    }

    /// Dequantizes all rows, `[rows, columns]`, in as many threads as there are processors.
    pub fn to_f32(&self) -> Vec<f32> {
        let (rows, columns) = (self.rows(), self.columns());
        let mut out = vec![0.0; rows * columns];
        let threads = thread::available_parallelism().map_or(1, |threads| threads.get());
        let threads = threads.min(out.len() / ELEMENTS_PER_THREAD).max(1);
        let each = rows.div_ceil(threads);
        thread::scope(|scope| {
            let mut parts = (out.chunks_mut(each * columns).enumerate())
                .map(|(part, out)| (part * each..rows.min((part + 1) * each), out));
            let own = parts.next();
            for (rows, out) in parts {
                scope.spawn(move || self.read_rows(rows, out));
            }
            if let Some((rows, out)) = own {
                self.read_rows(rows, out);
            }
        });
        out
    }
}

/// The file's index of row `row`. In each head of `head` rows the file alternates rows of the first half with rows
/// of the second, since llama.cpp rotates neighbours where transformers rotates halves.
fn interleaved_row(row: usize, head: usize) -> usize {
    let (start, within) = (row / head * head, row % head);
    let (half, place) = (within / (head / 2), within % (head / 2));
    start + 2 * place + half
}
