//! The gradient of a step as one vector.

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::Tensor,
};
use rag_core::parameters::for_each_parameter;

/// The Euclidean norm of all gradients together.
pub fn global_norm<M: Module>(module: &M, gradients: &GradientsParams) -> f64 {
    struct Norm<'a> {
        gradients: &'a GradientsParams,
        squares: Option<Tensor<1>>,
    }
    impl ModuleVisitor for Norm<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.get::<D>(param.id) {
                let square = gradient.square().sum();
                self.squares = Some(match self.squares.take() {
                    Some(sum) => sum + square,
                    None => square,
                });
            }
        }
    }
    let mut norm = Norm {
        gradients,
        squares: None,
    };
    module.visit(&mut norm);
    let squares = norm.squares.map_or(0.0, Tensor::into_scalar::<f32>);
    f64::from(squares).sqrt()
}

/// Multiplies every gradient with `factor`.
pub fn scale<M: Module>(module: &M, gradients: &mut GradientsParams, factor: f64) {
    struct Scale<'a> {
        gradients: &'a mut GradientsParams,
        factor: f64,
    }
    impl ModuleVisitor for Scale<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.remove::<D>(param.id) {
                self.gradients.register(param.id, gradient * self.factor);
            }
        }
    }
    module.visit(&mut Scale { gradients, factor });
}

/// The path of the first parameter that holds NaN or infinity, or, where none does, of the first
/// whose gradient does.
pub fn first_not_finite<M: Module>(module: &M, gradients: &GradientsParams) -> Option<String> {
    struct Find<'a> {
        gradients: &'a GradientsParams,
        parameter: Option<ParamId>,
        gradient: Option<ParamId>,
    }
    impl ModuleVisitor for Find<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let finite = |tensor: Tensor<D>| tensor.is_finite().all().into_scalar::<bool>();
            if self.parameter.is_none() && !finite(param.val().inner()) {
                self.parameter = Some(param.id);
            }
            let gradient = self.gradients.get::<D>(param.id);
            if self.gradient.is_none() && gradient.is_some_and(|gradient| !finite(gradient)) {
                self.gradient = Some(param.id);
            }
        }
    }
    let mut find = Find {
        gradients,
        parameter: None,
        gradient: None,
    };
    module.visit(&mut find);
    let (what, id) = match (find.parameter, find.gradient) {
        (Some(id), _) => ("the parameter", id),
        (None, Some(id)) => ("the gradient of", id),
        (None, None) => return None,
    };
    let mut first = None;
    for_each_parameter(module, |parameter| {
        if parameter.id() == id {
            first.get_or_insert_with(|| format!("{what} {}", parameter.path()));
        }
    });
    first
}
