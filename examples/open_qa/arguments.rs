//! The arguments of the command line.

use std::path::{Path, PathBuf};

use burn_rag::{
    core::marginal::RagModel,
    generate::Template,
    prelude::*,
    train::{
        IndexRefresh,
        lora::{Lora, LoraConfig},
    },
};
use clap::{Args, Parser};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Failure,
    settings::{AnswerFrom, Negatives, Setting},
};

/// Tunes a retriever, trains a language model with it, and measures what became of them.
#[derive(Parser)]
#[command(
    args_override_self = true,
    override_usage = "open_qa [OPTIONS] <ENCODER> <MODEL> <CORPUS> <OUTPUT>\n       open_qa --summary <OUTPUT>…"
)]
pub struct Arguments {
    /// Folder of a sentence encoder; a GGUF file, or the folder of a language model; the corpus; the folder that receives
    /// all that is made. With --summary, output folders
    #[arg(required = true, num_args = 1.., value_names = ["ENCODER", "MODEL", "CORPUS", "OUTPUT"])]
    pub paths: Vec<PathBuf>,
    /// Print one table of all results in these output folders
    #[arg(long)]
    pub summary: bool,
    /// Questions and answers, one JSON object a line, where the corpus is a folder of documents
    #[arg(long)]
    pub pairs: Option<PathBuf>,
    #[command(flatten)]
    pub tuning: Tuning,
    #[command(flatten)]
    pub recipe: Recipe,
    /// Held-out questions to measure on, evenly spread; all where there are fewer
    #[arg(long, default_value_t = 300)]
    pub questions: usize,
    /// Of the half that confidences are measured on, how many are asked three times more: without the passages that hold
    /// the answer, and without one of those found. Only where answers are read from the passages found, each by itself
    #[arg(long, default_value_t = 100, value_name = "QUESTIONS")]
    pub missing_passages: usize,
    /// Which passages they are answered from
    #[arg(long, value_enum, default_value_t = AnswerFrom::Retrieved)]
    pub answer_from: AnswerFrom,
    /// Name of this run's folder among the output's runs [default: made of the settings]
    #[arg(long)]
    pub name: Option<String>,
    /// Where to compute: cpu, and in builds that have them wgpu, cuda, or wgpu:1 for the second GPU
    #[arg(long, env = "RAG_DEVICE", default_value = "cpu")]
    pub device: String,
}

// How the retriever is made. (clap would take a doc comment here for the program's.)
#[derive(Args, Clone, Debug, Serialize)]
pub struct Tuning {
    /// How the encoder is tuned
    #[arg(long, value_enum, default_value_t = Negatives::Mined)]
    pub negatives: Negatives,
    /// Questions that it is tuned on
    #[arg(long, default_value_t = 640)]
    pub tuning_questions: usize,
    /// Questions that the weights of P(z|x) are fitted to
    #[arg(long, default_value_t = 500)]
    pub prior_questions: usize,
}

// How the language model is trained and asked.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Recipe {
    /// How the language model is trained, and what it reads
    #[arg(long, value_enum, default_value_t = Setting::Sequence)]
    pub setting: Setting,
    /// RAG-Sequence or RAG-Token: sequence or token [default: as the setting says]
    #[arg(long, value_parser = named::<RagModel>)]
    pub model: Option<RagModel>,
    /// Passages of a question
    #[arg(long, default_value_t = 3)]
    pub n_docs: usize,
    /// Training steps; with 0 the language model stays as it was given
    #[arg(long, default_value_t = 120)]
    pub steps: usize,
    /// Questions of a step
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    /// Questions whose activations are in memory at once
    #[arg(long, default_value_t = 1)]
    pub micro_batch: usize,
    /// Steps over which the learning rate rises; then it falls to nothing
    #[arg(long, default_value_t = 20)]
    pub warmup: usize,
    /// The highest learning rate of the language model [default: 5e-5, with --lora 5e-4]
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Train adapters of this rank in place of all parameters; 8 where no rank is named
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "8", value_name = "RANK")]
    pub lora: Option<usize>,
    /// Projections that get adapters, such as q_proj,v_proj,up_proj [default: queries and values]
    #[arg(long, value_delimiter = ',')]
    pub lora_modules: Vec<String>,
    /// Format of matrix products in training: f32, bf16 or f16
    #[arg(long, default_value = "f32", value_parser = named::<Precision>)]
    pub precision: Precision,
    /// Longest answer in tokens
    #[arg(long, default_value_t = 24)]
    pub new_tokens: usize,
    /// Longest prompt in tokens; of concatenated passages, so much for each of them
    #[arg(long, default_value_t = 512)]
    pub prompt_tokens: usize,
    /// Seed of the questions that are trained on, of their order, of adapters and dropout
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Steps between two checkpoints
    #[arg(long, default_value_t = 20)]
    #[serde(skip)]
    pub checkpoint_every: usize,
}

/// The files and folders of a run.
pub struct Given<'a> {
    pub encoder: &'a Path,
    pub model: &'a Path,
    pub corpus: &'a Path,
    pub output: &'a Path,
}

/// A setting, from the name that it has in JSON.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(name.into())
}

/// The highest learning rate of an encoder, whose parameters all train.
const ENCODER_RATE: f64 = 1e-5;
/// That of its adapters.
const ADAPTER_RATE: f64 = 1e-4;

impl Arguments {
    /// The four paths.
    pub fn given(&self) -> Result<Given<'_>, Failure> {
        match self.paths.as_slice() {
            [encoder, model, corpus, output] => Ok(Given {
                encoder,
                model,
                corpus,
                output,
            }),
            others => Err(format!(
                "expected four paths, <ENCODER> <MODEL> <CORPUS> <OUTPUT>, found {}; --help explains them",
                others.len()
            )
            .into()),
        }
    }

    /// The folder of the run in the output.
    pub fn run_name(&self) -> String {
        let name = self.name.clone().unwrap_or_else(|| {
            let Recipe {
                setting,
                model,
                n_docs,
                lora,
                seed,
                ..
            } = &self.recipe;
            let model = match model {
                Some(model) => format!("-{model:?}").to_lowercase(),
                None => String::new(),
            };
            let lora = lora.map_or_else(String::new, |rank| format!("-lora{rank}"));
            let negatives = self.tuning.negatives;
            format!("{setting}{model}-n{n_docs}{lora}-{negatives}-seed{seed}")
        });
        format!("runs/{name}")
    }
}

impl Recipe {
    /// Refuses numbers that cannot be, before anything is made.
    pub fn check(&self) -> Result<(), Failure> {
        for (name, found) in [
            ("n-docs", self.n_docs),
            ("batch", self.batch),
            ("micro-batch", self.micro_batch),
            ("new-tokens", self.new_tokens),
            ("lora", self.lora.unwrap_or(1)),
        ] {
            if found == 0 {
                return Err(format!("--{name} is 0: expected at least 1").into());
            }
        }
        Ok(())
    }

    /// Questions that training takes.
    pub fn pairs(&self) -> usize {
        self.steps * self.batch
    }

    /// Retriever and language model together: plain prompts, short answers that end with their line.
    pub fn rag(&self, retriever: Retriever, model: LanguageModel) -> Result<Rag, Failure> {
        let generation = GenerationConfig::default()
            .with_max_new_tokens(self.new_tokens)
            .with_stop_strings(["\n"]);
        let passages = match self.setting {
            Setting::Concatenated => self.n_docs,
            _ => 1,
        };
        Ok(Rag::from_parts(retriever, model)?
            .with_model(self.model.unwrap_or(self.setting.model()))
            .with_template(Template::plain())?
            .with_max_combined_length(passages * self.prompt_tokens)
            .with_generation(generation))
    }

    /// The adapters, where it is they that train.
    pub fn adapters(&self) -> Option<Lora> {
        let generator = LoraConfig {
            rank: self.lora?,
            alpha: 2.0 * self.lora? as f64,
            target_modules: (!self.lora_modules.is_empty()).then(|| self.lora_modules.clone()),
            seed: self.seed,
            ..LoraConfig::default()
        };
        let question_encoder = LoraConfig {
            rank: generator.rank,
            alpha: generator.alpha,
            seed: self.seed,
            ..LoraConfig::default()
        };
        Some(Lora {
            generator: Some(generator),
            question_encoder: (self.setting.trains_questions()).then_some(question_encoder),
        })
    }

    /// The training of the language model on [`Recipe::pairs`] questions, with its files in `folder`.
    pub fn training(&self, folder: PathBuf) -> TrainConfig {
        let (whole, encoder) = match self.lora {
            Some(_) => (5e-4, ADAPTER_RATE),
            None => (5e-5, ENCODER_RATE),
        };
        let retriever = |part| match self.setting.trains_questions() {
            true => part,
            false => Part::Frozen,
        };
        TrainConfig {
            epochs: 1,
            batch_size: self.batch,
            micro_batch_size: self.micro_batch,
            learning_rate: self.learning_rate.unwrap_or(whole),
            question_encoder: retriever(Part::TrainedAt(encoder)),
            context_encoder: self.setting.context_encoder(ENCODER_RATE),
            prior: retriever(TrainConfig::default().prior),
            index: IndexRefresh {
                every: 40,
                delay: 20,
                rescore: None,
            },
            // A share, which is rounded up to whole steps.
            warmup: ((self.warmup as f64 - 0.5) / self.steps.max(1) as f64).clamp(0.0, 0.5),
            max_gradient_norm: 1.0,
            retriever_loss: self.setting.retriever_loss(),
            precision: self.precision,
            seed: self.seed,
            // The held-out questions choose nothing: they are asked once, when all is done.
            evaluate_every: 0,
            checkpoints: Some(folder),
            checkpoint_every: self.checkpoint_every,
            ..TrainConfig::default()
        }
    }
}
