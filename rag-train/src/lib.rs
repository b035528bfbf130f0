//! Question-answer pairs to better parameters: retriever and generator trained together through the
//! marginal likelihood, and what is measured of them.

pub mod gradients;
mod joint;
mod optimizer;
mod scaler;
mod schedule;

pub use joint::{Batch, JointModel, Objective};
pub use optimizer::{Accumulation, Optimizer, Stepped};
pub use scaler::LossScaler;
pub use schedule::Schedule;
