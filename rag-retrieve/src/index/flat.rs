use std::{borrow::Cow, collections::BinaryHeap, iter::zip, ops::Range, sync::Arc};

use half::{f16, slice::HalfFloatSliceExt, vec::HalfFloatVecExt};
use memmap2::Mmap;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, CowArray, Ix2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Hit, Index, check_queries, check_scores};
use crate::error::{Error, Result};

/// Numbers of a block: 1 MiB of f32, which stays in a core's cache while its queries are scored.
const BLOCK: usize = 1 << 18;

/// Queries that are scored in one pass over the vectors.
const QUERIES: usize = 256;

/// Queries from which on a matrix product is faster than a product for each.
const MATRIX_PRODUCT: usize = 4;

/// How the numbers of vectors are kept, on disk and in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// Four bytes a number, scores as exact as f32 sums are.
    #[default]
    F32,
    /// Two bytes a number, each rounded to 11 significant bits; scores are still summed in f32.
    F16,
}

impl Storage {
    /// Bytes of one number.
    pub fn width(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<f16>(),
        }
    }
}

/// Exact search: every query against every vector, block by block on all cores.
///
/// Vectors are in memory or mapped from a file. Clones share them.
///
/// ```
/// # use rag_retrieve::{FlatIndex, Index, Storage};
/// use ndarray::array;
///
/// let index = FlatIndex::new(array![[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], Storage::F32)?;
/// let hits = index.search(array![[0.0, 2.0]].view(), 2)?;
/// assert_eq!((hits[0][0].position, hits[0][0].score), (1, 2.0));
/// assert_eq!((hits[0][1].position, hits[0][1].score), (2, 2.0));
/// # Ok::<(), rag_retrieve::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FlatIndex {
    elements: Elements,
    len: usize,
    dimension: usize,
}

#[derive(Clone, Debug)]
enum Elements {
    F32(Arc<Vec<f32>>),
    F16(Arc<Vec<f16>>),
    /// Little-endian rows, one after the other.
    Mapped(Arc<Mmap>, Storage),
}

impl FlatIndex {
    /// An index over `vectors: [passages, dimension]`, in memory.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a vector with NaN or an infinite number, [`Error::HalfRange`] for
    /// one too large for [`Storage::F16`], [`Error::Dimension`] for vectors of no number.
    pub fn new(vectors: Array2<f32>, storage: Storage) -> Result<Self> {
        let (len, dimension) = vectors.dim();
        if dimension == 0 {
            return Err(Error::Dimension {
                what: "passage vectors",
                expected: "at least 1".to_owned(),
                found: 0,
            });
        }
        let values = row_major(vectors);
        let broken = |row: &[f32]| !row.iter().all(|value| value.is_finite());
        if let Some(row) = values.par_chunks(dimension).position_first(broken) {
            let what = "passage vector";
            return Err(Error::NotFinite { what, row });
        }
        let elements = match storage {
            Storage::F32 => Elements::F32(Arc::new(values)),
            Storage::F16 => Elements::F16(Arc::new(halves(&values, dimension)?)),
        };
        Ok(Self {
            elements,
            len,
            dimension,
        })
    }

    /// An index over the little-endian rows of `map`, which holds whole rows only.
    pub(crate) fn mapped(map: Arc<Mmap>, storage: Storage, dimension: usize) -> Self {
        Self {
            len: map.len() / (dimension * storage.width()),
            elements: Elements::Mapped(map, storage),
            dimension,
        }
    }

    /// How numbers are kept.
    pub fn storage(&self) -> Storage {
        match self.elements {
            Elements::F32(_) => Storage::F32,
            Elements::F16(_) => Storage::F16,
            Elements::Mapped(_, storage) => storage,
        }
    }

    /// The vectors at `positions`, `[positions, dimension]`: borrowed where f32 is kept, else decoded.
    ///
    /// # Panics
    /// If `positions` reaches beyond [`Index::len`], as slicing does.
    pub fn rows(&self, positions: Range<usize>) -> CowArray<'_, f32, Ix2> {
        let shape = (positions.len(), self.dimension);
        let elements = positions.start * self.dimension..positions.end * self.dimension;
        let values: Cow<'_, [f32]> = match &self.elements {
            Elements::F32(values) => Cow::Borrowed(&values[elements]),
            Elements::F16(values) => Cow::Owned(values[elements].to_f32_vec()),
            Elements::Mapped(map, storage) => {
                let width = storage.width();
                decode(&map[elements.start * width..elements.end * width], *storage)
            }
        };
        let values = match values {
            Cow::Borrowed(values) => CowArray::from(ArrayView1::from(values)),
            Cow::Owned(values) => CowArray::from(Array1::from(values)),
        };
        values
            .into_shape_with_order(shape)
            .expect("as many numbers as rows times dimension")
    }

    /// All vectors as they are written to disk, a block of rows at a time.
    pub(crate) fn encoded(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let block = self.block_rows() * self.dimension;
        let end = self.len * self.dimension;
        (0..end).step_by(block).map(move |start| {
            let elements = start..end.min(start + block);
            match &self.elements {
                Elements::F32(values) => encode(&values[elements], |value| value.to_le_bytes()),
                Elements::F16(values) => encode(&values[elements], |value| value.to_le_bytes()),
                Elements::Mapped(map, storage) => {
                    let width = storage.width();
                    Cow::Borrowed(&map[elements.start * width..elements.end * width])
                }
            }
        })
    }

    fn block_rows(&self) -> usize {
        BLOCK.div_ceil(self.dimension)
    }

    fn nearest(&self, queries: ArrayView2<f32>, k: usize) -> Vec<Nearest> {
        let none = || vec![Nearest::new(k); queries.nrows()];
        (0..self.len.div_ceil(self.block_rows()))
            .into_par_iter()
            .fold(none, |mut nearest, block| {
                let start = block * self.block_rows();
                let end = self.len.min(start + self.block_rows());
                let vectors = self.rows(start..end);
                if queries.nrows() < MATRIX_PRODUCT {
                    for (nearest, query) in zip(&mut nearest, queries.rows()) {
                        nearest.offer(start, vectors.dot(&query).view());
                    }
                } else {
                    let scores = queries.dot(&vectors.t());
                    for (nearest, scores) in zip(&mut nearest, scores.rows()) {
                        nearest.offer(start, scores);
                    }
                }
                nearest
            })
            .reduce(none, |mut left, right| {
                for (left, right) in zip(&mut left, right) {
                    left.merge(right);
                }
                left
            })
    }
}

impl Index for FlatIndex {
    fn len(&self) -> usize {
        self.len
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn search(&self, queries: ArrayView2<f32>, k: usize) -> Result<Vec<Vec<Hit>>> {
        check_queries(queries, self.dimension)?;
        let k = k.min(self.len);
        let mut found = Vec::with_capacity(queries.nrows());
        if k == 0 {
            found.resize(queries.nrows(), Vec::new());
            return Ok(found);
        }
        for queries in queries.axis_chunks_iter(Axis(0), QUERIES) {
            found.extend(self.nearest(queries, k).into_iter().map(Nearest::ranked));
        }
        check_scores(&found)?;
        Ok(found)
    }
}

/// The numbers row after row, without a copy where they lie so already.
fn row_major(vectors: Array2<f32>) -> Vec<f32> {
    if !vectors.is_standard_layout() {
        return vectors.iter().copied().collect();
    }
    let len = vectors.len();
    let (mut values, offset) = vectors.into_raw_vec_and_offset();
    values.drain(..offset.unwrap_or(0));
    values.truncate(len);
    values
}

fn halves(values: &[f32], dimension: usize) -> Result<Vec<f16>> {
    let halves = Vec::from_f32_slice(values);
    match halves
        .par_iter()
        .position_first(|half: &f16| half.is_infinite())
    {
        Some(at) => Err(Error::HalfRange {
            row: at / dimension,
            value: values[at],
        }),
        None => Ok(halves),
    }
}

fn decode(bytes: &[u8], storage: Storage) -> Cow<'_, [f32]> {
    match storage {
        Storage::F32 => match bytemuck::try_cast_slice(bytes) {
            Ok(values) if cfg!(target_endian = "little") => Cow::Borrowed(values),
            _ => numbers(bytes, f32::from_le_bytes).collect(),
        },
        Storage::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
            Ok(values) if cfg!(target_endian = "little") => Cow::Owned(values.to_f32_vec()),
            _ => numbers(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
        },
    }
}

fn numbers<const N: usize>(
    bytes: &[u8],
    number: impl Fn([u8; N]) -> f32,
) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(move |bytes| number(*bytes))
}

fn encode<T: bytemuck::Pod, const N: usize>(
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(values))
    } else {
        values.iter().flat_map(|value| bytes(*value)).collect()
    }
}

/// The best `k` of all hits offered so far, the worst of them on top of the heap.
#[derive(Clone)]
struct Nearest {
    k: usize,
    heap: BinaryHeap<Ranked>,
}

impl Nearest {
    fn new(k: usize) -> Self {
        let heap = BinaryHeap::new();
        Self { k, heap }
    }

    fn offer(&mut self, start: usize, scores: ArrayView1<f32>) {
        for (offset, &score) in scores.iter().enumerate() {
            let worst = self.worst();
            if worst.is_none_or(|worst| score >= worst.score || score.is_nan()) {
                self.push(Hit {
                    position: start + offset,
                    score,
                });
            }
        }
    }

    fn merge(&mut self, other: Self) {
        for Ranked(hit) in other.heap {
            self.push(hit);
        }
    }

    fn push(&mut self, hit: Hit) {
        // A NaN, the trace of an overflow, ranks first so that it is seen; -0 equals 0.
        let score = if hit.score.is_nan() {
            f32::NAN
        } else {
            hit.score + 0.0
        };
        let hit = Ranked(Hit { score, ..hit });
        if self.heap.len() < self.k {
            self.heap.push(hit);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && hit < *worst
        {
            *worst = hit;
        }
    }

    /// What a hit must beat; `None` while there is room.
    fn worst(&self) -> Option<Hit> {
        let full = self.heap.len() == self.k;
        self.heap.peek().filter(|_| full).map(|ranked| ranked.0)
    }

    fn ranked(self) -> Vec<Hit> {
        let hits = self.heap.into_sorted_vec();
        hits.into_iter().map(|ranked| ranked.0).collect()
    }
}

#[derive(Clone, Copy)]
struct Ranked(Hit);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.rank(&other.0)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array, s};

    use super::*;

    /// Small whole numbers, whose products are exact in f16 and f32 and often tie.
    fn whole_numbers(rows: usize, dimension: usize, seed: u64) -> Array2<f32> {
        let mut state = seed | 1;
        Array2::from_shape_simple_fn((rows, dimension), || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 % 7.0 - 3.0
        })
    }

    fn by_full_sort(vectors: &Array2<f32>, query: ArrayView1<f32>, k: usize) -> Vec<Hit> {
        let scores = vectors.rows().into_iter().map(|row| row.dot(&query));
        let hits = scores
            .enumerate()
            .map(|(position, score)| Hit { position, score });
        let mut hits: Vec<Hit> = hits.collect();
        hits.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap());
        hits.truncate(k);
        hits
    }

    #[test]
    fn finds_what_a_full_sort_finds() {
        // 100_000 numbers a row make blocks of 3 rows; 3 numbers make one block of all.
        for (rows, dimension) in [(20, 100_000), (5000, 3), (1, 1), (400, 2000)] {
            let vectors = whole_numbers(rows, dimension, 7);
            for storage in [Storage::F32, Storage::F16] {
                let index = FlatIndex::new(vectors.clone(), storage).unwrap();
                assert_eq!((index.len(), index.dimension()), (rows, dimension));
                for questions in [0, 1, 5] {
                    let queries = whole_numbers(questions, dimension, 11);
                    for k in [0, 1, 10, rows, rows + 5] {
                        let found = index.search(queries.view(), k).unwrap();
                        let expected: Vec<_> = (queries.rows().into_iter())
                            .map(|query| by_full_sort(&vectors, query, k))
                            .collect();
                        assert_eq!(found, expected, "{rows} rows, {questions} questions, k {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn many_queries_are_answered_in_order() {
        let vectors = whole_numbers(50, 4, 3);
        let queries = whole_numbers(QUERIES * 2 + 3, 4, 5);
        let index = FlatIndex::new(vectors.clone(), Storage::F32).unwrap();
        for (found, query) in zip(index.search(queries.view(), 3).unwrap(), queries.rows()) {
            assert_eq!(found, by_full_sort(&vectors, query, 3));
        }
    }

    #[test]
    fn threads_do_not_change_the_answer() {
        let vectors = whole_numbers(300, 5000, 1).mapv(|x| x / 7.0);
        let queries = whole_numbers(6, 5000, 2).mapv(|x| x / 3.0);
        let index = FlatIndex::new(vectors, Storage::F32).unwrap();
        let search = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            pool.install(|| index.search(queries.view(), 20).unwrap())
        };
        assert_eq!(search(1), search(5));
    }

    #[test]
    fn any_layout_of_vectors_will_do() {
        let wide = whole_numbers(10, 8, 9);
        let layouts = [
            wide.t().to_owned().reversed_axes(),
            wide.clone().slice_move(s![3.., ..]),
            wide.clone().slice_move(s![.., 2..5]),
            wide.slice_move(s![..;-1, ..]),
        ];
        for vectors in layouts {
            let index = FlatIndex::new(vectors.clone(), Storage::F32).unwrap();
            assert_eq!(index.rows(0..vectors.nrows()), vectors);
        }
    }

    #[test]
    fn decoding_does_not_depend_on_alignment() {
        for storage in [Storage::F32, Storage::F16] {
            let vectors = whole_numbers(3, 5, 4);
            let index = FlatIndex::new(vectors.clone(), storage).unwrap();
            let bytes: Vec<u8> = index.encoded().flat_map(Cow::into_owned).collect();
            assert_eq!(bytes.len(), 15 * storage.width());
            let shifted = [&[0], bytes.as_slice()].concat();
            for bytes in [&bytes[..], &shifted[1..]] {
                assert_eq!(*decode(bytes, storage), *vectors.as_slice().unwrap());
            }
        }
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let vectors = |value: f32| array![[0.0, 1.0], [2.0, value]];
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = FlatIndex::new(vectors(value), Storage::F32).unwrap_err();
            assert!(matches!(error, Error::NotFinite { row: 1, .. }), "{error}");
            let index = FlatIndex::new(vectors(1.0), Storage::F32).unwrap();
            let error = index.search(vectors(value).view(), 1).unwrap_err();
            assert!(matches!(error, Error::NotFinite { row: 1, .. }), "{error}");
        }
        let error = FlatIndex::new(vectors(-1e5), Storage::F16).unwrap_err();
        assert!(matches!(error, Error::HalfRange { row: 1, .. }), "{error}");
        let none = FlatIndex::new(Array2::zeros((3, 0)), Storage::F32).unwrap_err();
        assert!(matches!(none, Error::Dimension { found: 0, .. }), "{none}");
        let index = FlatIndex::new(vectors(1.0), Storage::F16).unwrap();
        let wide = index.search(Array2::zeros((1, 3)).view(), 1).unwrap_err();
        assert!(matches!(wide, Error::Dimension { found: 3, .. }), "{wide}");
    }

    #[test]
    fn sums_that_overflow_are_refused() {
        let large = array![[1e38, 1e38], [1.0, 1.0]];
        let index = FlatIndex::new(large, Storage::F32).unwrap();
        for query in [array![[1e38, 1e38]], array![[1e38, -1e38]]] {
            let error = index.search(query.view(), 1).unwrap_err();
            assert!(matches!(error, Error::NotFinite { row: 0, .. }), "{error}");
        }
    }
}
