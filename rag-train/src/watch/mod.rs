//! Watching a training run: the metrics of each step, monitors that warn where it goes wrong, and a
//! report to read afterwards.
//!
//! Everything here is plain data in and plain data out; nothing holds a tensor.

mod axis;
mod chart;
mod charts;
pub(crate) mod config;
mod curve;
pub(crate) mod example;
pub(crate) mod metrics;
pub(crate) mod monitor;
mod number;
pub(crate) mod observation;
pub(crate) mod progress;
pub(crate) mod report;
mod statistics;
mod trust;
pub(crate) mod warning;
mod window;

pub use config::{Action, MonitorConfig};
pub use example::{ExamplePassage, ExampleRow};
pub use metrics::{EvaluationMetrics, Event, MetricsLog, StepMetrics};
pub use monitor::Monitor;
pub use observation::{Observation, QuestionObservation};
pub use report::RunReport;
pub use warning::{Warning, WarningKind};
