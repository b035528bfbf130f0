//! Question-answer pairs to better parameters: retriever and generator trained together through the
//! marginal likelihood, and what is measured of them.

#![forbid(unsafe_code)]

mod adamw;
mod bootstrap;
mod config;
pub mod contrastive;
mod data;
mod diary;
mod error;
pub mod evaluate;
mod fit_prior;
pub mod gradients;
pub mod inverse_cloze;
pub mod lora;
mod measured;
mod mine;
mod objective;
mod optimizer;
mod order;
pub mod plan;
mod prepare;
mod progress;
mod refresh;
mod report;
pub mod salient;
mod scaler;
mod schedule;
mod scratch;
mod state;
mod trainer;
pub mod watch;

pub use bootstrap::{Bootstrap, bootstrap};
pub use config::{Activations, IndexRefresh, Metric, OptimizerKind, Order, Part, TrainConfig};
pub use contrastive::{ContrastiveConfig, ContrastiveReport, Encoders, train_contrastive};
pub use data::{DprExample, QuestionAnswer, leaks, read_dpr, read_pairs, write_dpr};
pub use error::{Error, Result};
pub use fit_prior::fit_prior;
pub use inverse_cloze::InverseCloze;
pub use measured::Measured;
pub use mine::{Mined, Mining, mine};
pub use objective::{
    Backward, Batch, Beliefs, DropoutSeed, EncoderInput, JointModel, Losses, Objective, Prior,
    RetrieverLoss,
};
pub use optimizer::{Accumulation, Optimizer, Stepped};
pub use report::{Epoch, ExampleReport, Report, StepReport};
pub use salient::{SalientSpans, cloze_pairs};
pub use scaler::LossScaler;
pub use schedule::{Decay, Schedule};
pub use scratch::ScratchConfig;
pub use trainer::Trainer;
