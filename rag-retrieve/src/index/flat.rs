use std::{borrow::Cow, collections::BinaryHeap, iter::zip, ops::Range};

use ndarray::{Array2, ArrayView1, ArrayView2, Axis, CowArray, Ix2};
use rayon::prelude::*;

use super::{Hit, Index, Rows, Storage, check_queries, check_scores};
use crate::error::Result;

/// Numbers of a block: 1 MiB of f32, which stays in a core's cache while its queries are scored.
const BLOCK: usize = 1 << 18;

/// Queries that are scored in one pass over the vectors.
const QUERIES: usize = 256;

/// Queries from which on a matrix product is faster than a product for each.
const MATRIX_PRODUCT: usize = 4;

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
    parts: Vec<Part>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Part {
    /// Position of the first of its rows.
    start: usize,
    rows: Rows,
}

/// Vectors that are scored together.
enum Block<'a> {
    /// Rows of a part.
    Range(&'a Part, Range<usize>),
    /// Positions.
    Chosen(&'a [usize]),
}

impl FlatIndex {
    /// An index over `vectors: [passages, dimension]`, in memory.
    ///
    /// # Errors
    /// [`IndexError::NotFinite`](crate::IndexError::NotFinite) for a vector with NaN or an infinite number,
    /// [`IndexError::HalfRange`](crate::IndexError::HalfRange) for one too large for [`Storage::F16`],
    /// [`IndexError::Dimension`](crate::IndexError::Dimension) for vectors of no number.
    pub fn new(vectors: Array2<f32>, storage: Storage) -> Result<Self> {
        Ok(Self::of([Rows::new(vectors, storage)?]))
    }

    /// An index over all of `rows`, one after the other: at least one of one dimension.
    pub(crate) fn of(rows: impl IntoIterator<Item = Rows>) -> Self {
        let mut parts = Vec::new();
        let mut len = 0;
        for rows in rows {
            let start = len;
            len += rows.len();
            parts.push(Part { start, rows });
        }
        Self { parts, len }
    }

    /// How numbers are kept.
    pub fn storage(&self) -> Storage {
        self.parts[0].rows.storage()
    }

    /// The vectors at `positions`, `[positions, dimension]`: borrowed where f32 is kept one row after the
    /// other, else copied.
    ///
    /// # Panics
    /// If `positions` reaches beyond [`Index::len`], as slicing does.
    pub fn rows(&self, positions: Range<usize>) -> CowArray<'_, f32, Ix2> {
        if let Some(part) = self.part(positions.start)
            && positions.end <= part.start + part.rows.len()
        {
            return part
                .rows
                .range(positions.start - part.start..positions.end - part.start);
        }
        self.gather(&positions.collect::<Vec<_>>()).into()
    }

    /// The vectors at `positions`, in their order, `[positions, dimension]`.
    ///
    /// # Panics
    /// If one of them is not below [`Index::len`], as slicing does.
    pub fn gather(&self, positions: &[usize]) -> Array2<f32> {
        let mut vectors = Array2::zeros((positions.len(), self.dimension()));
        for (&position, vector) in zip(positions, vectors.rows_mut()) {
            let part = self.part(position);
            let part = part.unwrap_or_else(|| panic!("position {position} of {}", self.len));
            part.rows.copy(position - part.start, vector);
        }
        vectors
    }

    /// All vectors as they are written to disk, a block of rows at a time.
    pub(crate) fn encoded(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let block = self.block_rows();
        (self.parts.iter()).flat_map(move |part| part.rows.encoded(block))
    }

    /// The part that holds a position.
    fn part(&self, position: usize) -> Option<&Part> {
        let after = self.parts.partition_point(|part| part.start <= position);
        (position < self.len).then(|| &self.parts[after - 1])
    }

    fn block_rows(&self) -> usize {
        BLOCK.div_ceil(self.dimension())
    }

    fn nearest(&self, queries: ArrayView2<f32>, k: usize, blocks: &[Block]) -> Vec<Nearest> {
        let none = || vec![Nearest::new(k); queries.nrows()];
        blocks
            .par_iter()
            .fold(none, |mut nearest, block| {
                let vectors = match block {
                    Block::Range(part, rows) => part.rows.range(rows.clone()),
                    Block::Chosen(positions) => self.gather(positions).into(),
                };
                let offer = |nearest: &mut Nearest, scores: ArrayView1<f32>| {
                    let scores = scores.into_iter().copied();
                    match block {
                        Block::Range(part, rows) => {
                            nearest.offer(zip(part.start + rows.start.., scores));
                        }
                        Block::Chosen(positions) => {
                            nearest.offer(zip(positions.iter().copied(), scores));
                        }
                    }
                };
                if queries.nrows() < MATRIX_PRODUCT {
                    for (nearest, query) in zip(&mut nearest, queries.rows()) {
                        offer(nearest, vectors.dot(&query).view());
                    }
                } else {
                    let scores = queries.dot(&vectors.t());
                    for (nearest, scores) in zip(&mut nearest, scores.rows()) {
                        offer(nearest, scores);
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
        self.parts[0].rows.dimension()
    }

    fn search_among(
        &self,
        queries: ArrayView2<f32>,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Vec<Vec<Hit>>> {
        check_queries(queries, self.dimension())?;
        let k = k.min(among.map_or(self.len, <[usize]>::len));
        let mut found = Vec::with_capacity(queries.nrows());
        if k == 0 {
            found.resize(queries.nrows(), Vec::new());
            return Ok(found);
        }
        let block = self.block_rows();
        let blocks: Vec<Block> = match among {
            Some(positions) => positions.chunks(block).map(Block::Chosen).collect(),
            None => (self.parts.iter())
                .flat_map(|part| {
                    let starts = (0..part.rows.len()).step_by(block);
                    starts.map(move |start| {
                        Block::Range(part, start..part.rows.len().min(start + block))
                    })
                })
                .collect(),
        };
        for queries in queries.axis_chunks_iter(Axis(0), QUERIES) {
            let nearest = self.nearest(queries, k, &blocks);
            found.extend(nearest.into_iter().map(Nearest::ranked));
        }
        check_scores(&found)?;
        Ok(found)
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

    fn offer(&mut self, hits: impl Iterator<Item = (usize, f32)>) {
        for (position, score) in hits {
            let worst = self.worst();
            if worst.is_none_or(|worst| score >= worst.score || score.is_nan()) {
                self.push(Hit { position, score });
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

    /// The hit that another must beat; `None` while there is room.
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
    use crate::error::Error;
    use crate::index::error::IndexError;

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
    fn deleted_rows_and_parts_do_not_show() {
        let vectors = whole_numbers(90, 5, 3);
        for storage in [Storage::F32, Storage::F16] {
            let part = |rows: Range<usize>, live: Option<&[u32]>| {
                let part = vectors.slice(s![rows, ..]).to_owned();
                Rows::new(part, storage).unwrap().only(live.map(Into::into))
            };
            let index = FlatIndex::of([
                part(0..40, None),
                part(40..60, Some(&[0, 3, 4, 19])),
                part(60..61, Some(&[])),
                part(61..90, Some(&[28])),
            ]);
            let kept: Vec<usize> = (0..40).chain([40, 43, 44, 59, 89]).collect();
            let rows = vectors.select(Axis(0), &kept);
            let whole = FlatIndex::new(rows.clone(), storage).unwrap();
            assert_eq!(index.len(), 45);
            for range in [0..45, 0..40, 38..42, 41..43, 44..45, 7..7] {
                assert_eq!(index.rows(range.clone()), rows.slice(s![range, ..]));
            }
            let bytes = |index: &FlatIndex| -> Vec<u8> {
                let blocks = index.encoded().map(Cow::into_owned);
                blocks.collect::<Vec<_>>().concat()
            };
            assert_eq!(bytes(&index), bytes(&whole));
            let some: Vec<usize> = (0..45).filter(|i| i % 3 == 1).collect();
            for (k, queries) in [(1, 1), (7, 3), (50, 6)] {
                let queries = whole_numbers(queries, 5, 8);
                let found = index.search(queries.view(), k).unwrap();
                assert_eq!(found, whole.search(queries.view(), k).unwrap());
                let among = index.search_among(queries.view(), k, Some(&some)).unwrap();
                let all = whole.search(queries.view(), 45).unwrap();
                for (among, all) in zip(among, all) {
                    let mut expected = all;
                    expected.retain(|hit| hit.position % 3 == 1);
                    expected.truncate(k);
                    assert_eq!(among, expected);
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
    fn what_cannot_be_compared_is_refused() {
        let vectors = |value: f32| array![[0.0, 1.0], [2.0, value]];
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = FlatIndex::new(vectors(value), Storage::F32).unwrap_err();
            assert!(
                matches!(error, Error::Index(IndexError::NotFinite { row: 1, .. })),
                "{error}"
            );
            let index = FlatIndex::new(vectors(1.0), Storage::F32).unwrap();
            let error = index.search(vectors(value).view(), 1).unwrap_err();
            assert!(
                matches!(error, Error::Index(IndexError::NotFinite { row: 1, .. })),
                "{error}"
            );
        }
        let error = FlatIndex::new(vectors(-1e5), Storage::F16).unwrap_err();
        assert!(
            matches!(error, Error::Index(IndexError::HalfRange { row: 1, .. })),
            "{error}"
        );
        let none = FlatIndex::new(Array2::zeros((3, 0)), Storage::F32).unwrap_err();
        assert!(
            matches!(none, Error::Index(IndexError::Dimension { found: 0, .. })),
            "{none}"
        );
        let index = FlatIndex::new(vectors(1.0), Storage::F16).unwrap();
        let wide = index.search(Array2::zeros((1, 3)).view(), 1).unwrap_err();
        assert!(
            matches!(wide, Error::Index(IndexError::Dimension { found: 3, .. })),
            "{wide}"
        );
    }

    #[test]
    fn sums_that_overflow_are_refused() {
        let large = array![[1e38, 1e38], [1.0, 1.0]];
        let index = FlatIndex::new(large, Storage::F32).unwrap();
        for query in [array![[1e38, 1e38]], array![[1e38, -1e38]]] {
            let error = index.search(query.view(), 1).unwrap_err();
            assert!(
                matches!(error, Error::Index(IndexError::NotFinite { row: 0, .. })),
                "{error}"
            );
        }
    }
}
