//! Question-answer pairs to better parameters: retriever and generator trained together through the
//! marginal likelihood, and what is measured of them.

mod config;
mod bootstrap;
mod data;
mod error;
pub mod evaluate;
pub mod gradients;
pub mod inverse_cloze;
mod measured;
mod objective;
pub mod lora;
mod optimizer;
mod order;
mod prepare;
mod progress;
mod refresh;
pub mod salient;
mod scaler;
mod schedule;
mod scratch;
mod state;
mod trainer;

pub use config::{Activations, IndexRefresh, Metric, OptimizerKind, Order, Part, TrainConfig};
pub use bootstrap::{Bootstrap, bootstrap};
pub use data::{QuestionAnswer, read_pairs};
pub use error::{Error, Result};
pub use inverse_cloze::InverseCloze;
pub use measured::Measured;
pub use objective::{
    Backward, Batch, Beliefs, DropoutSeed, EncoderInput, JointModel, Losses, Objective,
    RetrieverLoss,
};
pub use optimizer::{Accumulation, Optimizer, Stepped};
pub use salient::{SalientSpans, cloze_pairs};
pub use scaler::LossScaler;
pub use schedule::{Decay, Schedule};
pub use scratch::ScratchConfig;
pub use trainer::{Epoch, ExampleReport, Report, StepReport, Trainer};
