//! Gradients by the names that a checkpoint has for parameters.

use std::collections::BTreeMap;

use burn_rag::{
    burn::{
        module::{Module, ModuleVisitor, Param},
        optim::GradientsParams,
        tensor::Tensor,
    },
    core::checkpoint::Tensors,
    train::JointModel,
};

use crate::arrays::{Arrays, Case, values};

/// The gradients of the parameters that `names` stores.
pub fn named(
    joint: &JointModel,
    gradients: &GradientsParams,
    names: &Tensors,
) -> BTreeMap<String, Vec<f32>> {
    struct Collect<'a>(&'a GradientsParams, BTreeMap<u64, Vec<f32>>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.1.insert(param.id.val(), values(gradient));
            }
        }
    }
    let mut collected = Collect(gradients, BTreeMap::new());
    joint.visit(&mut collected);
    names
        .ids()
        .filter_map(|(name, id)| Some((name.to_owned(), collected.1.remove(&id?)?)))
        .collect()
}

/// Compares the gradient of every parameter that the case names.
pub fn compare(
    arrays: &Arrays,
    case: &Case,
    found: &BTreeMap<String, Vec<f32>>,
) -> Result<(), String> {
    for name in case.params["parameters"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        let gradient = found.get(name).ok_or(format!("no gradient of {name}"))?;
        arrays.compare_values(case, &format!("grad:{name}"), gradient)?;
    }
    Ok(())
}
