mod folder;
mod parts;

use std::path::Path;

use burn::tensor::Device;
use rag_core::checkpoint::{Tensors, Weights, read_json, write_json, write_safetensors};
use rag_retrieve::Encoder;

use crate::{config::RagConfig, decode::GenerationConfig, error::Result, generator::Generator};

/// The weights and settings of a RAG checkpoint folder, as transformers' `save_pretrained` writes
/// them: question encoder and generator.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// `config.json`
    pub config: RagConfig,
    /// `generation_config.json`, or what the generator's configuration says.
    pub generation: GenerationConfig,
    /// Encodes questions.
    pub question_encoder: Encoder,
    /// Writes answers.
    pub generator: Generator,
}

const QUESTION_ENCODER: &str = "rag.question_encoder.";
const GENERATOR: &str = "rag.generator.";

impl Checkpoint {
    /// Freshly initialised weights.
    ///
    /// # Errors
    /// [`rag_core::Error::Config`].
    pub fn new(config: RagConfig, device: &Device) -> Result<Self> {
        Ok(Self {
            generation: config.generator.generation(),
            question_encoder: config.question_encoder.init(device)?,
            generator: config.generator.init(device)?,
            config,
        })
    }

    /// Reads a folder such as `facebook/rag-token-nq`.
    ///
    /// # Errors
    /// Those of [`Weights`]; [`rag_core::Error::Json`].
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let config: RagConfig = read_json(folder.join("config.json"))?;
        let own = config.generator.generation();
        let generation = folder.join("generation_config.json");
        let generation = if generation.is_file() {
            let mut read: GenerationConfig = read_json(&generation)?;
            // No file says that answers start at the prompt's end; the family does.
            if own.decoder_start_token_id == Some(GenerationConfig::PROMPT_END) {
                read.decoder_start_token_id = own.decoder_start_token_id;
            }
            read
        } else {
            own
        };
        let mut weights = Weights::open(folder)?;
        let encoder_prefix = question_encoder_prefix(&config);
        let question_encoder =
            config
                .question_encoder
                .load(&mut weights, &encoder_prefix, device)?;
        let generator = config.generator.load(&mut weights, GENERATOR, device)?;
        // Old checkpoints hold an untrained pooler, buffers, and copies of tied weights; some hold the
        // context encoder that they were trained with.
        let family = config.generator.family();
        weights.finish(|name| {
            name.contains(".pooler.")
                || name.ends_with("position_ids")
                || name.starts_with("rag.ctx_encoder.")
                || family.is_redundant(name)
        })?;
        Ok(Self {
            config,
            generation,
            question_encoder,
            generator,
        })
    }

    /// Writes `config.json`, `generation_config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let mut tensors = Tensors::default();
        let prefix = question_encoder_prefix(&self.config);
        self.config
            .question_encoder
            .store(&self.question_encoder, &mut tensors, &prefix);
        self.generator.store(&mut tensors, GENERATOR);
        write_json(folder.join("config.json"), &self.config)?;
        write_json(folder.join("generation_config.json"), &self.generation)?;
        write_safetensors(folder.join("model.safetensors"), &tensors)?;
        Ok(())
    }
}

/// DPR wraps its BERT once more.
fn question_encoder_prefix(config: &RagConfig) -> String {
    match config.question_encoder.bert.model_type.as_str() {
        "dpr" => format!("{QUESTION_ENCODER}question_encoder."),
        _ => QUESTION_ENCODER.to_owned(),
    }
}
