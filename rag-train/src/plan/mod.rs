//! How much memory training takes, before any of it is allocated.

mod activations;
mod decoder_only;
mod layers;
mod memory;
mod settings;
mod shape;
pub(crate) mod size;

use std::fmt;

use burn::tensor::Device;
use rag_generate::RagConfig;

use self::{
    memory::F32,
    shape::{Count, Shape},
};
use crate::{
    error::{Error, Result},
    run::optimizer::OptimizerKind,
};

pub use memory::{ActivationMemory, Parameters};
pub use settings::{Component, PlanSettings, Vary};
pub use size::Size;

/// Bytes that training takes, by what they hold.
///
/// Sizes of parameters, gradients, optimiser and index are exact. Activations are counted from what
/// Burn's autodiff keeps of each operation on the CPU; the source of this module lists it. Not
/// counted are the memory that a GPU's allocator holds in reserve, and label smoothing, which needs
/// more tensors of the size of the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Parameters in f32.
    pub parameters: Parameters,
    /// Gradients of one step.
    pub gradients: u64,
    /// Moments that the optimiser keeps from the first step on.
    pub optimizer: u64,
    /// The tensors that the forward pass keeps for the backward pass.
    pub activations: ActivationMemory,
    /// Vectors of the index, whether in memory or mapped.
    pub index: u64,
    /// The most that activations and gradients take together: activations go as gradients come.
    pub backward: u64,
    /// The most that is held at any time of a step.
    pub total: u64,
    shape: Shape,
    settings: PlanSettings,
}

/// Plans the training of the model that `config` describes, on `device`; nothing is allocated there.
///
/// ```
/// use rag_train::{TrainConfig, plan::{PlanSettings, Vary, plan}};
/// # use rag_core::marginal::RagModel;
/// # use rag_generate::{RagConfig, generator::{BartConfig, GeneratorConfig}};
///
/// # let config = RagConfig::new(RagModel::Sequence, Default::default(), GeneratorConfig::Bart(BartConfig::default()));
/// let device = rag_core::device("cpu")?;
/// let settings = PlanSettings { passages: 21_015_324, ..PlanSettings::default() };
/// let settings = settings.of(&TrainConfig::default());
/// let plan = plan(&config, &settings, &device)?;
/// println!("{plan}");
/// let (batch, _) = plan.largest(160 << 30, Vary::Batch)?;
/// assert!(batch > 8);
/// # Ok::<(), rag_train::Error>(())
/// ```
///
/// # Errors
/// [`Error::Setting`] for a size of 0; [`rag_core::Error::Config`] for a model that cannot be.
pub fn plan(config: &RagConfig, settings: &PlanSettings, device: &Device) -> Result<Plan> {
    settings.check()?;
    Ok(Plan::of(Shape::of(config, device)?, settings.clone()))
}

impl Plan {
    /// The largest value of a setting with which everything fits in `limit` bytes, with its plan; the
    /// other settings stay as they are.
    ///
    /// # Errors
    /// [`Error::DoesNotFit`] where not even 1 fits, with what takes most.
    pub fn largest(&self, limit: u64, vary: Vary) -> Result<(usize, Self)> {
        let with = |value| Self::of(self.shape.clone(), vary.set(&self.settings, value));
        let all = vary.most(&self.settings, &self.shape);
        let plan = with(all);
        if plan.total <= limit {
            return Ok((all, plan));
        }
        let one = with(1);
        if one.total > limit {
            let (dominant, bytes) = one.dominant();
            return Err(Error::DoesNotFit {
                setting: vary.name(),
                needed: Size(one.total),
                limit: Size(limit),
                dominant,
                bytes: Size(bytes),
            });
        }
        let (mut fits, mut does_not) = (1, all);
        while does_not - fits > 1 {
            let middle = fits + (does_not - fits) / 2;
            if with(middle).total <= limit {
                fits = middle;
            } else {
                does_not = middle;
            }
        }
        Ok((fits, with(fits)))
    }

    fn of(shape: Shape, settings: PlanSettings) -> Self {
        let trained: Vec<Count> = (settings.trained.iter())
            .map(|part| match part {
                Component::QuestionEncoder | Component::ContextEncoder => shape.retriever,
                Component::Generator => shape.generator,
            })
            .collect();
        let numbers = |of: fn(&Count) -> u64| trained.iter().map(of).sum::<u64>();
        let gradients = F32 * numbers(|count| count.trained);
        let optimizer = match settings.optimizer {
            OptimizerKind::AdamW => 2 * gradients,
            OptimizerKind::AdamWBf16 => gradients,
            OptimizerKind::Adafactor => F32 * numbers(|count| count.factored),
        };
        let parameters = Parameters {
            question_encoder: F32 * shape.retriever.all,
            context_encoder: F32 * shape.retriever.all,
            generator: F32 * shape.generator.all,
        };
        let index = settings.passages as u64 * shape.dimension * settings.storage.width() as u64;
        let activations = shape.activations(&settings);
        let held = if settings.accumulates() { gradients } else { 0 };
        let backward = held + shape.backward(&settings, gradients);
        // The update of a parameter needs two more tensors of its size for a moment.
        let largest = trained.iter().map(|count| count.largest).max();
        let update = gradients + 2 * F32 * largest.unwrap_or(0);
        Self {
            parameters,
            gradients,
            optimizer,
            activations,
            index,
            backward,
            total: parameters.total() + optimizer + index + backward.max(update),
            shape,
            settings,
        }
    }

    /// The largest of the parts.
    fn dominant(&self) -> (&'static str, u64) {
        let parts = [
            ("the parameters", self.parameters.total()),
            ("the gradients", self.gradients),
            ("the optimiser", self.optimizer),
            ("the activations", self.activations.total()),
            ("the index", self.index),
        ];
        parts
            .into_iter()
            .max_by_key(|(_, bytes)| *bytes)
            .expect("there are five parts")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parameters {
            question_encoder,
            context_encoder,
            generator,
        } = self.parameters;
        let mut line = |name: &str, bytes| writeln!(f, "{name:<28}{:>12}", Size(bytes).to_string());
        line("parameters", self.parameters.total())?;
        line("  question encoder", question_encoder)?;
        line("  context encoder", context_encoder)?;
        line("  generator", generator)?;
        line("gradients", self.gradients)?;
        line("optimiser", self.optimizer)?;
        line("activations", self.activations.total())?;
        for (name, bytes) in self.activations.rows() {
            if bytes > 0 {
                line(&format!("  {name}"), bytes)?;
            }
        }
        line("with gradients, at most", self.backward)?;
        line("index", self.index)?;
        write!(
            f,
            "{:<28}{:>12}",
            "in all, at most",
            Size(self.total).to_string()
        )
    }
}
