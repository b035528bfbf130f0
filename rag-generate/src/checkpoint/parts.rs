//! The folder of a [`Rag`] whose generator is a decoder alone:
//!
//! ```text
//! config.json                the settings of RAG, and the template of prompts
//! question_encoder/          opens by itself in transformers, as
//! context_encoder/           these two
//! generator/                 do
//! ```

use std::path::Path;

use burn::tensor::Device;
use rag_core::checkpoint::{read_json, write_json};
use rag_retrieve::{Knowledge, Retriever, Role, TextEncoder};
use serde_json::{Map, Value};

use crate::{
    config::RagConfig,
    decode::GenerationConfig,
    error::Result,
    language_model::LanguageModel,
    rag::{Rag, with_cosines_scaled},
    template::Template,
};

/// The folder of the encoder of passages, here and where the generator has an encoder.
pub(super) const CONTEXT_ENCODER: &str = "context_encoder";
const QUESTION_ENCODER: &str = "question_encoder";
const GENERATOR: &str = "generator";
const CONFIG: &str = "config.json";
/// The field of `config.json`.
const TEMPLATE: &str = "template";

/// Whether the folder is one of parts.
pub(super) fn is_in(folder: &Path) -> bool {
    folder.join(GENERATOR).join(CONFIG).is_file()
}

pub(super) fn load(
    folder: &Path,
    context_encoder: TextEncoder,
    knowledge: impl Knowledge + 'static,
    device: &Device,
) -> Result<Rag> {
    let path = folder.join(CONFIG);
    let mut settings: Map<String, Value> = read_json(&path)?;
    for part in [QUESTION_ENCODER, GENERATOR] {
        settings.insert(part.into(), read_json(folder.join(part).join(CONFIG))?);
    }
    // A folder that was put together by hand says nothing of a template: the generator's counts, and it is as it was
    // published, with the settings of chats.
    let is_published = !settings.contains_key(TEMPLATE);
    let mut config: RagConfig =
        serde_json::from_value(settings.into()).map_err(rag_core::Error::json(&path))?;
    let question_encoder = TextEncoder::load(folder.join(QUESTION_ENCODER), device)?;
    let retriever = Retriever::new(question_encoder, context_encoder, knowledge, config.n_docs)?;
    let generator = folder.join(GENERATOR);
    let model = LanguageModel::load(&generator, device)?;
    let settings = generator.join("generation_config.json");
    let generation = match !is_published && settings.is_file() {
        true => read_json::<GenerationConfig>(&settings)?.for_model(&model.generation),
        false => model.generation,
    };
    if is_published {
        config.template = Some(model.template);
    }
    Rag::of(
        with_cosines_scaled(retriever),
        model.generator,
        model.tokenizer,
        config,
        generation,
    )
}

pub(super) fn write(rag: &Rag, folder: &Path) -> Result<()> {
    let config = rag.config();
    let path = folder.join(CONFIG);
    let mut settings = serde_json::to_value(&config).map_err(rag_core::Error::json(&path))?;
    if let Value::Object(settings) = &mut settings {
        settings.remove(QUESTION_ENCODER);
        settings.remove(GENERATOR);
        settings.entry(TEMPLATE).or_insert(Value::Null);
    }
    let question = rag.retriever.question_text_encoder()?;
    let context = rag.retriever.context_text_encoder()?;
    write_json(&path, &settings)?;
    question.save(folder.join(QUESTION_ENCODER), Role::Question)?;
    context.save(folder.join(CONTEXT_ENCODER), Role::Context)?;
    let model = LanguageModel {
        generator: rag.generator().clone(),
        tokenizer: rag.tokenizer().clone(),
        generation: rag.generation().clone(),
        template: config.template.unwrap_or_else(Template::plain),
        config: config.generator,
    };
    model.save(folder.join(GENERATOR))
}
