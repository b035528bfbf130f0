//! GELU, softmax and dropout.

mod dropout;
mod gelu;
mod softmax;

pub(crate) use dropout::drop_some;
pub use dropout::{Mask, dropout};
pub use gelu::gelu;
pub(crate) use gelu::gelu_in_place;
pub use softmax::softmax;
pub(crate) use softmax::{softmax_row, softmax_row_gradient};
