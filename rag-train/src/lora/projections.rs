//! Where adapters can be: the linear projections of a model, by the checkpoint's names.

use std::collections::{BTreeMap, BTreeSet};

use burn::{
    module::{LoraAdapter, Module, Param, ParamId, Reparameterizer},
    tensor::{Device, Tensor},
};
use rag_core::{checkpoint::Tensors, parameters::for_each_parameter};
use rag_generate::{Rag, generator::family};

use super::config::LoraConfig;
use crate::error::{Error, Result};

/// A model of a [`Rag`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Generator,
    QuestionEncoder,
}

pub(super) const PARTS: [Part; 2] = [Part::Generator, Part::QuestionEncoder];

/// Adapters by the id of the weight that they belong to.
pub(super) type Adapters = BTreeMap<ParamId, LoraAdapter>;

/// The projections of a model, in the order of its layers.
pub(super) struct Projections {
    pub part: Part,
    pub all: Vec<Projection>,
    /// PEFT's name for this kind of model.
    pub task_type: &'static str,
    /// The names of queries and values.
    default_targets: &'static [&'static str],
}

pub(super) struct Projection {
    /// The checkpoint's name of the module, such as `model.encoder.layers.0.self_attn.q_proj`.
    pub name: String,
    /// That of the weight.
    pub id: ParamId,
    /// `[d_output, d_input]`
    pub shape: [usize; 2],
    pub device: Device,
    /// Of its adapter, if it has one: Burn's `a` `[d_output, rank]` and `b` `[rank, d_input]`.
    pub factors: Vec<Tensor<2>>,
}

impl Part {
    /// Also that of the folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator",
            Self::QuestionEncoder => "question_encoder",
        }
    }

    pub fn projections(self, rag: &Rag) -> Result<Projections> {
        let mut tensors = Tensors::default();
        let (all, adapters) = match self {
            Self::Generator => {
                rag.generator().store(&mut tensors, "");
                let adapters = rag.config().generator.family().adapters();
                (collect(rag.generator(), &tensors), adapters)
            }
            Self::QuestionEncoder => {
                let question = rag.retriever.question_text_encoder()?;
                // The names within transformers' class, DPRQuestionEncoder or BertModel.
                let prefix = match question.config().bert.model_type.as_str() {
                    "dpr" => "question_encoder.",
                    _ => "",
                };
                let config = question.config();
                config.store(question.encoder(), &mut tensors, prefix);
                let adapters = family::Adapters {
                    task_type: "FEATURE_EXTRACTION",
                    target_modules: &["query", "value"],
                };
                (collect(question.encoder(), &tensors), adapters)
            }
        };
        Ok(Projections {
            part: self,
            all,
            task_type: adapters.task_type,
            default_targets: adapters.target_modules,
        })
    }

    /// Freezes the model and adds `adapters`.
    pub fn attach(self, mut rag: Rag, adapters: Adapters) -> Result<Rag> {
        let attach = Attach(adapters);
        match self {
            Self::Generator => {
                let generator = rag.generator().clone().apply_reparameterization(attach);
                rag = rag.with_generator(generator)?;
            }
            Self::QuestionEncoder => {
                let question = rag.retriever.question_text_encoder()?;
                let encoder = question.encoder().clone().apply_reparameterization(attach);
                let adapted = question.with_encoder(encoder);
                rag.retriever = rag.retriever.clone().with_question_encoder(adapted);
            }
        }
        Ok(rag)
    }
}

impl Projections {
    /// Those whose names are among `targets` or end in `.` and one of them.
    pub fn select(&self, targets: Option<&[String]>) -> Result<Vec<&Projection>> {
        let targets: Vec<&str> = match targets {
            Some(targets) => targets.iter().map(String::as_str).collect(),
            None => self.default_targets.to_vec(),
        };
        for target in &targets {
            if !self.all.iter().any(|projection| projection.is(target)) {
                let ends = self.all.iter().map(Projection::last_name);
                let ends: BTreeSet<_> = ends.collect();
                return Err(Error::TargetModules {
                    part: self.part.name(),
                    found: (*target).to_owned(),
                    available: ends.into_iter().collect::<Vec<_>>().join(", "),
                });
            }
        }
        let wanted = |projection: &&Projection| targets.iter().any(|target| projection.is(target));
        Ok(self.all.iter().filter(wanted).collect())
    }

    /// The names of those that `config` selects, with its defaults written out.
    pub fn target_modules(&self, config: &LoraConfig) -> Vec<String> {
        let defaults = || self.default_targets.iter().map(|&name| name.to_owned());
        (config.target_modules.clone()).unwrap_or_else(|| defaults().collect())
    }

    pub fn adapted(&self) -> Vec<&Projection> {
        let adapted = |projection: &&Projection| !projection.factors.is_empty();
        self.all.iter().filter(adapted).collect()
    }

    pub fn check_bare(&self) -> Result<()> {
        let adapted = self.adapted();
        if adapted.is_empty() {
            return Ok(());
        }
        Err(Error::Adapters {
            part: self.part.name(),
            found: described(&adapted),
            expected: "none; merge them first, or take the base model".into(),
        })
    }

    /// Whether the adapters are those of `config`, or none.
    pub fn check_adapted(&self, config: Option<&LoraConfig>) -> Result<()> {
        let adapted = self.adapted();
        let selected = match config {
            Some(config) => self.select(config.target_modules.as_deref())?,
            None => Vec::new(),
        };
        let rank = config.map(|config| config.rank);
        let names = |found: &[&Projection]| -> Vec<String> {
            found
                .iter()
                .map(|projection| projection.name.clone())
                .collect()
        };
        let same_rank = adapted.iter().all(|projection| projection.rank() == rank);
        if same_rank && names(&adapted) == names(&selected) {
            return Ok(());
        }
        Err(Error::Adapters {
            part: self.part.name(),
            found: described(&adapted),
            expected: match rank {
                Some(rank) => format!("rank {rank} on {} projections", selected.len()),
                None => "none".into(),
            } + ", as configured",
        })
    }
}

impl Projection {
    fn is(&self, target: &str) -> bool {
        let before = self.name.strip_suffix(target);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    }

    fn last_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    fn rank(&self) -> Option<usize> {
        self.factors.first().map(|a| a.dims()[1])
    }
}

fn described(adapted: &[&Projection]) -> String {
    match adapted.first().and_then(|projection| projection.rank()) {
        Some(rank) => format!(
            "LoRA adapters of rank {rank} on {} projections",
            adapted.len()
        ),
        None => "no LoRA adapters".into(),
    }
}

/// The projections of `model`, whose parameters `tensors` names.
fn collect<M: Module>(model: &M, tensors: &Tensors) -> Vec<Projection> {
    let module =
        |(name, id): (&str, Option<u64>)| Some((id?, name.strip_suffix(".weight")?.to_owned()));
    let names: BTreeMap<u64, String> = tensors.ids().filter_map(module).collect();
    let mut projections: Vec<Projection> = Vec::new();
    for_each_parameter(model, |parameter| {
        match (parameter.owner(), parameter.names().last()) {
            // Embeddings are matrices too, but not projections.
            ("Struct:Linear", Some("weight")) => {
                if let Some(name) = names.get(&parameter.id().val()) {
                    projections.push(Projection {
                        name: name.clone(),
                        id: parameter.id(),
                        shape: parameter.shape().dims(),
                        device: parameter.device(),
                        factors: Vec::new(),
                    });
                }
            }
            // An adapter's factors follow its weight.
            ("Struct:LoraAdapter", _) => {
                if let Some(projection) = projections.last_mut() {
                    projection.factors.extend(parameter.matrix());
                }
            }
            _ => {}
        }
    });
    projections
}

/// Freezes every parameter and gives weights their adapters.
struct Attach(Adapters);

impl Reparameterizer for Attach {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let adapter = self.0.remove(&param.id);
        (param.set_require_grad(false), adapter)
    }
}
