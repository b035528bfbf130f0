use burn::tensor::{Device, Int, Tensor, TensorData};
use ndarray::{ArrayView2, Axis};

use super::{FlatIndex, Hit, Index, check_queries, check_scores};
use crate::{
    error::{Error, Result},
    index::error::IndexError,
};

/// Numbers of a matrix of scores, 256 MiB of f32.
const SCORES: usize = 1 << 26;

/// Exact search on a device, such as a GPU: a matrix product and the device's own top-k.
///
/// The vectors are copied there in f32. Which of equal scores are the last of the best k, the device
/// decides. On the CPU [`FlatIndex`] is faster.
#[derive(Clone, Debug)]
pub struct DeviceIndex {
    /// `[dimension, passages]`.
    vectors: Tensor<2>,
}

impl DeviceIndex {
    /// An index over the vectors of `index`, in their order.
    pub fn new(index: &FlatIndex, device: &Device) -> Self {
        let shape = [index.len(), index.dimension()];
        let rows = index.rows(0..index.len()).into_owned();
        let data = TensorData::new(rows.into_raw_vec_and_offset().0, shape);
        Self {
            vectors: Tensor::<2>::from_data(data, device).transpose(),
        }
    }

    fn best(
        &self,
        queries: ArrayView2<f32>,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Vec<Vec<Hit>>> {
        let device = self.vectors.device();
        let shape = [queries.nrows(), queries.ncols()];
        let queries = TensorData::new(queries.iter().copied().collect(), shape);
        let mut scores = Tensor::<2>::from_data(queries, &device).matmul(self.vectors.clone());
        if let Some(among) = among {
            let columns: Vec<i64> = among.iter().map(|&position| position as i64).collect();
            let columns = TensorData::new(columns, [among.len()]);
            scores = scores.select(1, Tensor::<1, Int>::from_data(columns, &device));
        }
        let (scores, positions): (Tensor<2>, Tensor<2, Int>) = scores.topk_with_indices(k, 1);
        let read = |error| {
            Error::Index(IndexError::Device {
                source: Box::new(error),
            })
        };
        let scores = scores.try_into_vec_as::<f32>().map_err(read)?;
        let positions = positions.try_into_vec_as::<i64>().map_err(read)?;
        let hits = scores.chunks(k).zip(positions.chunks(k));
        Ok(hits
            .map(|(scores, positions)| {
                let hit = |(&score, &column): (&f32, &i64)| Hit {
                    position: among.map_or(column as usize, |among| among[column as usize]),
                    score,
                };
                let mut hits: Vec<Hit> = scores.iter().zip(positions).map(hit).collect();
                hits.sort_by(Hit::rank);
                hits
            })
            .collect())
    }
}

impl Index for DeviceIndex {
    fn len(&self) -> usize {
        self.vectors.dims()[1]
    }

    fn dimension(&self) -> usize {
        self.vectors.dims()[0]
    }

    fn search_among(
        &self,
        queries: ArrayView2<f32>,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Vec<Vec<Hit>>> {
        check_queries(queries, self.dimension())?;
        let k = k.min(among.map_or(self.len(), <[usize]>::len));
        if k == 0 {
            return Ok(vec![Vec::new(); queries.nrows()]);
        }
        let at_once = (SCORES / self.len()).max(1);
        let mut found = Vec::with_capacity(queries.nrows());
        for queries in queries.axis_chunks_iter(Axis(0), at_once) {
            found.extend(self.best(queries, k, among)?);
        }
        check_scores(&found)?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::Storage;

    /// Numbers without two equal products.
    fn numbers(rows: usize, dimension: usize, seed: u32) -> Array2<f32> {
        let mut state = seed;
        Array2::from_shape_simple_fn((rows, dimension), || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        })
    }

    #[test]
    fn finds_what_the_cpu_finds() {
        let device = rag_core::device("cpu").unwrap();
        for storage in [Storage::F32, Storage::F16] {
            let flat = FlatIndex::new(numbers(700, 24, 1), storage).unwrap();
            let index = DeviceIndex::new(&flat, &device);
            assert_eq!((index.len(), index.dimension()), (700, 24));
            let queries = numbers(5, 24, 2);
            let some: Vec<usize> = (0..700).step_by(9).collect();
            let asked = [0, 1, 20, 700, 900].into_iter();
            for (k, among) in asked.flat_map(|k| [(k, None), (k, Some(&some[..]))]) {
                let found = index.search_among(queries.view(), k, among).unwrap();
                let expected = flat.search_among(queries.view(), k, among).unwrap();
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    assert!((found.score - expected.score).abs() < 1e-5);
                }
                let positions = |found: &[Vec<Hit>]| -> Vec<Vec<usize>> {
                    let hits = found.iter().map(|hits| hits.iter());
                    hits.map(|hits| hits.map(|hit| hit.position).collect())
                        .collect()
                };
                assert_eq!(positions(&found), positions(&expected), "k {k}");
            }
        }
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        let device = rag_core::device("cpu").unwrap();
        let flat = FlatIndex::new(array![[f32::MAX, 1.0], [0.0, 1.0]], Storage::F32).unwrap();
        let index = DeviceIndex::new(&flat, &device);
        let search = |query: Array2<f32>| index.search(query.view(), 1);
        assert!(matches!(
            search(array![[1.0]]),
            Err(Error::Index(IndexError::Dimension { .. }))
        ));
        assert!(matches!(
            search(array![[f32::NAN, 1.0]]),
            Err(Error::Index(IndexError::NotFinite { .. }))
        ));
        assert!(matches!(
            search(array![[f32::MAX, 1.0]]),
            Err(Error::Index(IndexError::NotFinite { .. }))
        ));
    }
}
