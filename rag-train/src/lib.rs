//! Question-answer pairs to better parameters: retriever and generator trained together through the
//! marginal likelihood, and what is measured of them.

mod data;
mod error;
pub mod evaluate;
pub mod gradients;
pub mod inverse_cloze;
mod joint;
mod optimizer;
mod progress;
mod scaler;
mod schedule;
mod scratch;
mod trainer;
pub mod watch;

pub use data::{QuestionAnswer, read_pairs};
pub use error::{Error, Result};

pub use inverse_cloze::InverseCloze;
pub use joint::{Batch, JointModel, Objective};
pub use optimizer::{Accumulation, Optimizer, Stepped};
pub use scaler::LossScaler;
pub use schedule::Schedule;
pub use scratch::ScratchConfig;
pub use trainer::{Epoch, Report, StepReport, TrainConfig, Trainer};
