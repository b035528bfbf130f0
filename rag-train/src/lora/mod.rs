//! LoRA (Hu et al. 2021, arXiv 2106.09685): the weights stay as they are, and what training adds to
//! some projections has a low rank, `W + α/r · B A`. The paper's learning rates are mostly between 2e-4
//! and 5e-4: an order above those that fine-tune everything.
//!
//! ```no_run
//! use rag_train::{TrainConfig, Trainer, lora::{self, Lora}, read_pairs};
//! # fn run(rag: rag_generate::Rag) -> rag_train::Result<()> {
//! let pairs = read_pairs("pairs.jsonl")?;
//! let lora = Lora::default();
//! let mut trainer = Trainer::new(lora.apply(rag)?, TrainConfig::default(), pairs.len())?;
//! trainer.run(&pairs, &[])?;
//! lora.save(&trainer.rag(), "adapters")?;
//! lora::merge(trainer.rag()).save("merged")?;
//! # Ok(())
//! # }
//! ```

mod peft;
mod projections;

use std::path::Path;

use burn::{
    module::{LoraAdapter, Module, ModuleVisitor, Param, ParamGroup},
    tensor::{Tensor, TensorData},
};
use rag_core::atomic::replace_folder;
use rag_generate::Rag;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use projections::{Adapters, PARTS, Part, Projection, Projections};

/// Which models of a [`Rag`] get adapters. All else of both is frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// Those of the generator.
    pub generator: Option<LoraConfig>,
    /// Those of the question encoder.
    pub question_encoder: Option<LoraConfig>,
}

/// Adapters of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// r: the factors are A `[r, d_input]` and B `[d_output, r]`.
    pub rank: usize,
    /// α, in the factor of their product.
    pub alpha: f64,
    /// How that factor depends on r.
    pub scaling: Scaling,
    /// Ends of the checkpoint's names of the projections, such as `q_proj`, `encoder_attn.v_proj` or
    /// `SelfAttention.q`. `None` takes the queries and values of all attentions, as the paper and PEFT:
    /// `q_proj` and `v_proj` in BART, `q` and `v` in T5, `query` and `value` in BERT.
    pub target_modules: Option<Vec<String>>,
    /// Name or folder of the base model, for PEFT's `adapter_config.json`.
    pub base_model: Option<String>,
    /// Seed of A.
    pub seed: u64,
}

/// What B A is multiplied with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// α / r, as the paper.
    #[default]
    Rank,
    /// α / √r, which stays stable as r grows (Kalajdzievski 2023, arXiv 2312.03732).
    RootOfRank,
}

impl Default for Lora {
    /// Both models.
    fn default() -> Self {
        Self {
            generator: Some(LoraConfig::default()),
            question_encoder: Some(LoraConfig::default()),
        }
    }
}

impl Default for LoraConfig {
    /// PEFT's.
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            scaling: Scaling::Rank,
            target_modules: None,
            base_model: None,
            seed: 0,
        }
    }
}

impl Lora {
    /// Adds new adapters, which change nothing yet, and freezes everything else: a
    /// [`Trainer`](crate::Trainer) of the result moves the adapters only. Dropout stays as it is.
    ///
    /// Every product with an adapted projection composes its weight anew; [`merge`] before answering
    /// many questions. [`Rag::save`] writes merged weights, here too.
    ///
    /// # Errors
    /// [`Error::TargetModules`], [`Error::Setting`]; [`Error::Adapters`] where there are some already.
    pub fn apply(&self, mut rag: Rag) -> Result<Rag> {
        for part in PARTS {
            let projections = part.projections(&rag)?;
            projections.check_bare()?;
            let adapters = match self.of(part) {
                Some(config) => config.start(&projections)?,
                None => Adapters::new(),
            };
            rag = part.attach(rag, adapters)?;
        }
        Ok(rag)
    }

    /// Writes the adapters that were applied with these settings, as PEFT does: a folder `generator`
    /// and a folder `question_encoder`, each with `adapter_config.json` and
    /// `adapter_model.safetensors`. What stood at `folder` is replaced whole.
    ///
    /// # Errors
    /// [`Error::Adapters`] where `rag` has others; [`rag_core::Error::Io`].
    pub fn save(&self, rag: &Rag, folder: impl AsRef<Path>) -> Result<()> {
        replace_folder(folder, |folder| {
            for part in PARTS {
                let projections = part.projections(rag)?;
                let config = self.of(part);
                projections.check_adapted(config)?;
                if let Some(config) = config {
                    peft::write(&folder.join(part.name()), config, &projections)?;
                }
            }
            Ok(())
        })
    }

    /// Reads what [`Lora::save`] or PEFT has written, onto the base model that it was trained on. The
    /// model without a folder is frozen, as in [`Lora::apply`]. PEFT's dropout between input and A is
    /// not taken over.
    ///
    /// # Errors
    /// [`rag_core::Error::MissingFile`], [`rag_core::Error::Json`]; [`rag_core::Error::Config`] for
    /// kinds of adapters other than LoRA and rsLoRA; [`rag_core::Error::Shape`],
    /// [`rag_core::Error::MissingTensors`] or [`rag_core::Error::UnknownTensors`] where they do not fit
    /// the model; [`Error::Adapters`] where it has some already.
    pub fn load(folder: impl AsRef<Path>, mut rag: Rag) -> Result<(Self, Rag)> {
        let folder = folder.as_ref();
        let mut lora = Self {
            generator: None,
            question_encoder: None,
        };
        for part in PARTS {
            let projections = part.projections(&rag)?;
            projections.check_bare()?;
            let folder = folder.join(part.name());
            let mut adapters = Adapters::new();
            if folder.is_dir() {
                let config;
                (config, adapters) = peft::read(&folder, &projections)?;
                match part {
                    Part::Generator => lora.generator = Some(config),
                    Part::QuestionEncoder => lora.question_encoder = Some(config),
                }
            }
            rag = part.attach(rag, adapters)?;
        }
        if lora.generator.is_none() && lora.question_encoder.is_none() {
            return Err(Error::Core(rag_core::Error::MissingFile {
                folder: folder.to_owned(),
                expected: PARTS.map(Part::name).join(", "),
            }));
        }
        Ok((lora, rag))
    }

    fn of(&self, part: Part) -> Option<&LoraConfig> {
        match part {
            Part::Generator => self.generator.as_ref(),
            Part::QuestionEncoder => self.question_encoder.as_ref(),
        }
    }
}

impl LoraConfig {
    fn check(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::setting("rank", 0, "at least 1"));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(Error::setting("alpha", self.alpha, "a number above 0"));
        }
        if self.target_modules.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::setting("target_modules", "[]", "at least one name"));
        }
        Ok(())
    }

    fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        match self.scaling {
            Scaling::Rank => self.alpha / rank,
            Scaling::RootOfRank => self.alpha / rank.sqrt(),
        }
    }

    /// Adapters before training: B is 0 and A uniform within ±1/√d_input, as in PEFT and, but for the
    /// distribution, the paper. (Burn draws the other factor; a random A bears higher learning rates:
    /// Hayou et al. 2024, arXiv 2406.08447.)
    fn start(&self, projections: &Projections) -> Result<Adapters> {
        self.check()?;
        let mut random = StdRng::seed_from_u64(self.seed);
        let start = |projection: &Projection| {
            let [_, d_input] = projection.shape;
            let bound = (d_input as f32).powf(-0.5);
            let a = (0..self.rank * d_input).map(|_| random.random_range(-bound..bound));
            let a = TensorData::new(a.collect::<Vec<f32>>(), [self.rank, d_input]);
            let mut adapter = self.zeros(projection);
            adapter.b = Param::from_tensor(Tensor::from_data(a, &projection.device));
            (projection.id, adapter)
        };
        let selected = projections.select(self.target_modules.as_deref())?;
        Ok(selected.into_iter().map(start).collect())
    }

    /// An adapter that is 0. Burn's `a` is the paper's B, and its `b` the paper's A: it multiplies in
    /// the order of weights that are `[d_input, d_output]`, ours are `[d_output, d_input]`.
    fn zeros(&self, projection: &Projection) -> LoraAdapter {
        let [d_output, d_input] = projection.shape;
        let zeros = |shape| Param::from_tensor(Tensor::zeros(shape, &projection.device));
        LoraAdapter {
            a: zeros([d_output, self.rank]),
            b: zeros([self.rank, d_input]),
            scale: self.scale(),
        }
    }
}

/// Adds the adapters to their weights and drops them: an ordinary model, with the outputs that it had,
/// of which every parameter trains again.
#[must_use]
pub fn merge(mut rag: Rag) -> Rag {
    fn dense<M: Module>(model: M) -> M {
        // BART's constant is the one parameter that never trains.
        let constant = ParamGroup::from_predicate("final_logits_bias");
        model
            .materialize()
            .set_require_grad_group(ParamGroup::all().exclude(constant), true)
    }
    if let Some(question) = rag.retriever.question_encoder().text_encoder() {
        let merged = question.with_encoder(dense(question.encoder.clone()));
        rag.retriever = rag.retriever.clone().with_question_encoder(merged);
    }
    rag.generator = dense(rag.generator);
    rag
}

/// How many of a model's parameters train, and how many there are with them.
pub fn trainable<M: Module>(model: &M) -> (usize, usize) {
    #[derive(Default)]
    struct Count {
        trainable: usize,
        all: usize,
    }
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let size = param.shape().num_elements();
            self.all += size;
            self.trainable += if param.is_require_grad() { size } else { 0 };
        }
    }
    let mut count = Count::default();
    // Only tensors with autodiff say whether they want gradients.
    model.valid().train().visit(&mut count);
    (count.trainable, count.all)
}
