//! Watching a training run: the metrics of each step, monitors that warn where it goes wrong, and a
//! report to read afterwards.
//!
//! Everything here is plain data in and plain data out; nothing holds a tensor.

mod axis;
mod chart;
mod charts;
mod config;
mod curve;
mod example;
mod metrics;
mod monitor;
mod number;
mod observation;
mod report;
mod warning;
mod window;

pub use config::{Action, MonitorConfig};
pub use example::{ExamplePassage, ExampleRow};
pub use metrics::{EvaluationMetrics, Event, MetricsLog, StepMetrics};
pub use monitor::Monitor;
pub use observation::{Observation, QuestionObservation};
pub use report::RunReport;
pub use warning::{Warning, WarningKind};
