//! LoRA (Hu et al. 2021, arXiv 2106.09685): the weights stay as they are, and what training adds to
//! some projections has a low rank, `W + α/r · B A`. The paper's learning rates are mostly between 2e-4
//! and 5e-4: an order above those that fine-tune everything.
//!
//! ```no_run
//! use rag_train::{TrainConfig, Trainer, lora::{self, Lora}, read_pairs};
//! # fn run(rag: rag_generate::Rag) -> rag_train::Result<()> {
//! let pairs = read_pairs("pairs.jsonl")?;
//! let lora = Lora::default();
//! let mut trainer = Trainer::new(lora.apply(rag)?, TrainConfig::default())?;
//! trainer.run(&pairs, &[])?;
//! lora.save(&trainer.rag(), "adapters")?;
//! lora::merge(trainer.rag()).save("merged")?;
//! # Ok(())
//! # }
//! ```

mod adapters;
mod config;
mod peft;
mod projections;

use std::path::Path;

use burn::module::{Module, ParamGroup};
use rag_core::{atomic::replace_folder, parameters::for_each_parameter};
use rag_generate::Rag;
use serde::{Deserialize, Serialize};

use self::projections::{Adapters, PARTS, Part};
use crate::error::{Error, Result};

pub use config::{LoraConfig, Scaling};

/// Which models of a [`Rag`] get adapters. All else of both is frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// Those of the generator.
    pub generator: Option<LoraConfig>,
    /// Those of the question encoder.
    pub question_encoder: Option<LoraConfig>,
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
        let merged = question.with_encoder(dense(question.encoder().clone()));
        rag.retriever = rag.retriever.clone().with_question_encoder(merged);
    }
    let generator = dense(rag.generator().clone());
    rag.with_generator(generator)
        .expect("merging leaves the vocabulary as it is")
}

/// How many of a model's parameters train, and how many there are with them.
pub fn trainable<M: Module>(model: &M) -> (usize, usize) {
    let (mut trainable, mut all) = (0, 0);
    // Only tensors with autodiff say whether they want gradients.
    for_each_parameter(&model.valid().train(), |parameter| {
        let size = parameter.shape().num_elements();
        all += size;
        trainable += if parameter.trains() { size } else { 0 };
    });
    (trainable, all)
}
