//! What a golden folder holds beside its model: cases, and arrays of inputs and expected values.

use std::{collections::BTreeMap, fs, path::Path};

use burn_rag::{
    burn::tensor::{Device, Int, Tensor, TensorData},
    core::TokenBatch,
};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

/// `cases.json`
#[derive(Deserialize)]
pub struct Cases {
    pub cases: Vec<Case>,
}

/// What is computed, and how near it must come.
#[derive(Deserialize)]
pub struct Case {
    pub id: String,
    pub kind: String,
    pub params: Value,
    /// The largest difference, relative to `max(1, |expected|)`.
    pub tolerance: f32,
}

/// `cases.safetensors`
pub struct Arrays(BTreeMap<String, Array>);

struct Array {
    shape: Vec<usize>,
    values: Values,
}

enum Values {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

impl Case {
    /// The array `name` of this case.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.id)
    }
}

impl Arrays {
    pub fn open(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let arrays = file.iter().map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::I64 => Values::Int(
                    data.as_chunks()
                        .0
                        .iter()
                        .map(|b| i64::from_le_bytes(*b))
                        .collect(),
                ),
                Dtype::F32 => Values::Float(
                    data.as_chunks()
                        .0
                        .iter()
                        .map(|b| f32::from_le_bytes(*b))
                        .collect(),
                ),
                other => panic!("{name} has the type {other:?}"),
            };
            let shape = view.shape().to_vec();
            (name.to_owned(), Array { shape, values })
        });
        Self(arrays.collect())
    }

    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub fn tokens(&self, case: &Case, ids: &str, mask: &str, device: &Device) -> TokenBatch {
        TokenBatch {
            ids: self.ids(case, ids, device),
            mask: self.ids(case, mask, device),
        }
    }

    pub fn ids(&self, case: &Case, name: &str, device: &Device) -> Tensor<2, Int> {
        let (shape, values) = self.int_values(&case.key(name));
        Tensor::from_data(TensorData::new(values.to_vec(), shape.to_vec()), device)
    }

    pub fn floats<const D: usize>(&self, key: &str, device: &Device) -> Tensor<D> {
        let (shape, values) = self.float_values(key);
        Tensor::from_data(TensorData::new(values.to_vec(), shape.to_vec()), device)
    }

    pub fn int_values(&self, key: &str) -> (&[usize], &[i64]) {
        match &self.0[key] {
            Array {
                shape,
                values: Values::Int(values),
            } => (shape, values),
            _ => panic!("{key} holds no integers"),
        }
    }

    pub fn float_values(&self, key: &str) -> (&[usize], &[f32]) {
        match &self.0[key] {
            Array {
                shape,
                values: Values::Float(values),
            } => (shape, values),
            _ => panic!("{key} holds no floats"),
        }
    }

    /// The scores of each question's passages.
    pub fn doc_scores(&self, case: &Case) -> Vec<&[f32]> {
        let (shape, scores) = self.float_values(&case.key("doc_scores"));
        scores.chunks(shape[1]).collect()
    }

    pub fn compare<const D: usize>(
        &self,
        case: &Case,
        name: &str,
        found: Tensor<D>,
    ) -> Result<(), String> {
        let (shape, _) = self.float_values(&case.key(name));
        if found.dims().as_slice() != shape {
            return Err(format!(
                "{name}: expected {shape:?}, found {:?}",
                found.dims()
            ));
        }
        let found = found.into_data().convert::<f32>();
        self.compare_values(case, name, &found.iter::<f32>().collect::<Vec<_>>())
    }

    pub fn compare_values(&self, case: &Case, name: &str, found: &[f32]) -> Result<(), String> {
        let (_, expected) = self.float_values(&case.key(name));
        case.near(name, expected, found)
    }
}

impl Case {
    /// Compares number by number, within the tolerance.
    pub fn near(&self, name: &str, expected: &[f32], found: &[f32]) -> Result<(), String> {
        if expected.len() != found.len() {
            return Err(format!(
                "{name}: expected {} numbers, found {}",
                expected.len(),
                found.len()
            ));
        }
        for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
            let error = (expected - found).abs() / expected.abs().max(1.0);
            // A NaN is no agreement.
            if error.is_nan() || error > self.tolerance {
                return Err(format!("{name}[{i}]: expected {expected}, found {found}"));
            }
        }
        Ok(())
    }
}

/// A sequence up to and including its first end token at `first` or after it.
pub fn until_end(row: &[i64], ends: &[u32], first: usize) -> Vec<i64> {
    let is_end = |id: &i64| ends.iter().any(|&end| i64::from(end) == *id);
    let end = row[first..].iter().position(is_end);
    row[..end.map_or(row.len(), |end| first + end + 1)].to_vec()
}

/// The numbers of a tensor, row-major.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().iter::<f32>().collect()
}
