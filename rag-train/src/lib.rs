//! Question-answer pairs to better parameters: retriever and generator trained together through the
//! marginal likelihood, and what is measured of them.
//!
//! Three types are enough for most programs:
//!
//! - [`TrainConfig`]: every setting of a run, with defaults that work;
//! - [`Trainer`]: takes a [`Rag`](rag_generate::Rag) and a [`TrainConfig`], runs over [`QuestionAnswer`]s, and gives the
//!   trained [`Rag`](rag_generate::Rag) back;
//! - [`Report`]: what the run did, an entry an epoch.
//!
//! ```no_run
//! use rag_train::{TrainConfig, Trainer, read_pairs};
//!
//! # fn run(rag: rag_generate::Rag) -> rag_train::Result<()> {
//! let pairs = read_pairs("pairs.jsonl")?;
//! let mut trainer = Trainer::new(rag, TrainConfig::default())?;
//! let report = trainer.run(&pairs, &[])?;
//! let rag = trainer.rag();
//! # Ok(())
//! # }
//! ```
//!
//! The rooms, from what is needed to what needs it:
//!
//! | folder | what is there |
//! |---|---|
//! | `data/` | question-answer pairs, and DPR's questions with passages for and against |
//! | [`evaluate`] | how good answers and passages are, and how far probabilities can be trusted |
//! | `objective/` | what is minimised, and its gradient |
//! | [`watch`] | what each step tells, monitors that warn, the report; plain data |
//! | `run/` | settings, the loop over epochs, one step, the optimiser, saving and resuming |
//! | `retriever/` | the retriever by itself: [`contrastive`] training, hard negatives, the weights of P(z\|x) |
//! | `start/` | a model from nothing, a retriever from passages, questions made of documents ([`salient`]) |
//! | [`lora`] | adapters of low rank in place of all parameters |
//! | [`plan`] | what training takes in memory, before it runs |

#![forbid(unsafe_code)]

mod data;
mod error;
pub mod evaluate;
pub mod lora;
mod objective;
pub mod plan;
mod retriever;
mod run;
mod start;
pub mod watch;

pub use data::{
    dpr::{DprExample, read_dpr, write_dpr},
    pairs::{QuestionAnswer, leaks, read_pairs},
    unanswerable::unanswerable,
};
pub use error::{Error, Result};
pub use evaluate::measured::{Measured, Metric};
pub use objective::{
    joint::{Batch, DropoutSeed, EncoderInput, JointModel},
    loss::{Backward, Beliefs, Losses, Objective, RetrieverLoss},
    prior::Prior,
};
pub use retriever::{
    contrastive::{self, ContrastiveConfig, ContrastiveReport, Encoders, train_contrastive},
    fit_prior::fit_prior,
    mine::{Mined, Mining, mine},
};
pub use run::{
    activations::Activations,
    config::{IndexRefresh, Part, TrainConfig},
    gradients,
    optimizer::{Accumulation, Optimizer, OptimizerKind, Stepped},
    order::Order,
    report::{Epoch, ExampleReport, Report, StepReport},
    scaler::LossScaler,
    schedule::{Decay, Schedule},
    trainer::Trainer,
};
pub use start::{
    bootstrap::{Bootstrap, bootstrap},
    inverse_cloze::{self, InverseCloze},
    salient::{self, SalientSpans, cloze_pairs},
    scratch::ScratchConfig,
};
