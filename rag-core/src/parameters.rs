//! A walk over a module's parameters, whatever their rank, with the path of each.

use std::fmt;

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::{Bool, Device, Int, Shape, Tensor},
};

/// A parameter, and where it stands in its module.
#[derive(Clone, Copy)]
pub struct Parameter<'a> {
    fields: &'a [Field],
    tensor: &'a dyn AnyRank,
}

/// A step of a path.
struct Field {
    /// The type that has the field, such as `Struct:Linear`.
    owner: String,
    name: String,
}

/// Calls `each` with every parameter of `module`, in the order of its fields. None is initialised by that.
pub fn for_each_parameter<M: Module>(module: &M, each: impl FnMut(Parameter<'_>)) {
    let fields = Vec::new();
    module.visit(&mut Walk { fields, each });
}

impl<'a> Parameter<'a> {
    /// The names of the fields that lead to it. The variant of an enum is not among them.
    pub fn names(self) -> impl Iterator<Item = &'a str> {
        let fields = self.fields.iter();
        fields
            .filter(|field| !field.owner.starts_with("Enum:"))
            .map(|field| field.name.as_str())
    }

    /// These names, joined by dots, as burn-store calls the parameter.
    pub fn path(self) -> String {
        self.names().collect::<Vec<_>>().join(".")
    }

    /// The type that has it as a field, such as `Struct:Linear`.
    pub fn owner(self) -> &'a str {
        self.fields.last().map_or("", |field| &field.owner)
    }

    /// By which gradients and an optimiser's moments are kept.
    pub fn id(self) -> ParamId {
        self.tensor.id()
    }

    /// Its shape; a parameter that is not initialised stays so.
    pub fn shape(self) -> Shape {
        self.tensor.shape()
    }

    /// Where it is, or will be initialised.
    pub fn device(self) -> Device {
        self.tensor.device()
    }

    /// Whether it asks for a gradient; on a device without autodiff no parameter does.
    pub fn trains(self) -> bool {
        self.tensor.trains()
    }

    /// The numbers of a floating-point matrix; `None` for any other parameter.
    pub fn matrix(self) -> Option<Tensor<2>> {
        self.tensor.matrix()
    }
}

impl fmt::Debug for Parameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parameter").field(&self.path()).finish()
    }
}

/// A parameter of any rank.
trait AnyRank {
    fn id(&self) -> ParamId;
    fn shape(&self) -> Shape;
    fn device(&self) -> Device;
    fn trains(&self) -> bool;
    fn matrix(&self) -> Option<Tensor<2>>;
}

macro_rules! any_rank {
    ($tensor:ty, $trains:expr, $matrix:expr) => {
        impl<const D: usize> AnyRank for Param<$tensor> {
            fn id(&self) -> ParamId {
                self.id
            }
            fn shape(&self) -> Shape {
                self.lazy_shape()
            }
            fn device(&self) -> Device {
                self.lazy_device()
            }
            fn trains(&self) -> bool {
                let trains: fn(&Self) -> bool = $trains;
                trains(self)
            }
            fn matrix(&self) -> Option<Tensor<2>> {
                let matrix: fn(&Self) -> Option<Tensor<2>> = $matrix;
                matrix(self)
            }
        }
    };
}

any_rank!(Tensor<D>, |param| param.is_require_grad(), |param| {
    (D == 2).then(|| {
        let matrix = param.val();
        let shape: [usize; 2] = matrix.shape().dims();
        matrix.reshape(shape)
    })
});
any_rank!(Tensor<D, Int>, |_| false, |_| None);
any_rank!(Tensor<D, Bool>, |_| false, |_| None);

struct Walk<F> {
    fields: Vec<Field>,
    each: F,
}

impl<F: FnMut(Parameter<'_>)> Walk<F> {
    fn arrive(&mut self, tensor: &dyn AnyRank) {
        let fields = &self.fields;
        (self.each)(Parameter { fields, tensor });
    }
}

impl<F: FnMut(Parameter<'_>)> ModuleVisitor for Walk<F> {
    fn enter_module(&mut self, name: &str, owner: &str) {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.fields.push(Field { owner, name });
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.fields.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.arrive(param);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.arrive(param);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.arrive(param);
    }
}
