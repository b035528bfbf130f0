use rag_core::marginal::{Compat, RagModel};
use rag_retrieve::{EncoderConfig, PriorWeights};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{calibration::Calibration, generator::GeneratorConfig, template::Template};

/// `config.json` of a RAG model as transformers writes it, with what this library adds to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RagConfig {
    /// `RagSequenceForGeneration` or `RagTokenForGeneration`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// The retriever's encoder of questions.
    pub question_encoder: EncoderConfig,
    /// The generator.
    pub generator: GeneratorConfig,
    /// Passages that are retrieved for a question.
    #[serde(default = "five")]
    pub n_docs: usize,
    /// Longest context in tokens: passage and question.
    #[serde(default = "three_hundred")]
    pub max_combined_length: usize,
    /// Between a passage's title and its text.
    #[serde(default = "title_separator")]
    pub title_sep: String,
    /// Between passage and question.
    #[serde(default = "document_separator")]
    pub doc_sep: String,
    /// Before every context, such as a T5 task prefix.
    #[serde(default)]
    pub prefix: Option<String>,
    /// RAG-Sequence: equal candidates of several passages are scored once.
    #[serde(default = "yes")]
    pub do_deduplication: bool,
    /// The log-likelihood's convention; not a field of transformers.
    #[serde(default)]
    pub compat: Compat,
    /// The weights of P(z|x), where the retriever has its own; not a field of transformers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<PriorWeights>,
    /// How a decoder-only generator is asked; without it, `prefix`, `title_sep` and `doc_sep` say how contexts are
    /// written. Not a field of transformers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// How likely its answers are to be right, where that was fitted; not a field of transformers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Everything else in the file, kept for whoever reads it next.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn five() -> usize {
    5
}

fn three_hundred() -> usize {
    300
}

fn title_separator() -> String {
    " / ".into()
}

fn document_separator() -> String {
    " // ".into()
}

fn yes() -> bool {
    true
}

impl RagConfig {
    /// A configuration with the paper's settings.
    pub fn new(
        model: RagModel,
        question_encoder: EncoderConfig,
        generator: GeneratorConfig,
    ) -> Self {
        let mut config = Self {
            architectures: Vec::new(),
            question_encoder,
            generator,
            n_docs: five(),
            max_combined_length: three_hundred(),
            title_sep: title_separator(),
            doc_sep: document_separator(),
            prefix: None,
            do_deduplication: true,
            compat: Compat::Paper,
            prior: None,
            template: None,
            calibration: None,
            other: Map::new(),
        };
        config.set_model(model);
        config.other.insert("model_type".into(), "rag".into());
        let has_encoder = config.generator.family().architecture().is_none();
        config
            .other
            .insert("is_encoder_decoder".into(), has_encoder.into());
        config
    }

    /// Where the sum over passages stands; RAG-Sequence unless the file says RAG-Token.
    pub fn model(&self) -> RagModel {
        match self.architectures.first() {
            Some(name) if name.starts_with("RagToken") => RagModel::Token,
            _ => RagModel::Sequence,
        }
    }

    /// Chooses where the sum over passages stands; the weights serve both.
    pub fn set_model(&mut self, model: RagModel) {
        let name = match model {
            RagModel::Sequence => "RagSequenceForGeneration",
            RagModel::Token => "RagTokenForGeneration",
        };
        self.architectures = vec![name.into()];
    }
}
