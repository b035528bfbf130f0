use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use ndarray::Array2;
use rag_core::{
    Encoding, Passage, TokenBatch, Tokenizer,
    checkpoint::{Names, Tensors, Weights, read_json, write_json, write_safetensors},
    nn::{Linear, LinearConfig, Precision, with_precision},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    batches::by_length,
    bert::{Bert, BertConfig, tokenizer_settings},
    error::EncoderError,
    role::Role,
};
use crate::error::{Error, Result};

/// How the states of a text become its vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The state of the first token (DPR, BGE).
    #[default]
    Cls,
    /// The mean over the tokens (all-MiniLM, E5).
    Mean,
}

/// Whether vectors are scaled to length 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalization {
    /// As they come (DPR).
    #[default]
    None,
    /// To length 1, which makes scores cosines (sentence encoders).
    L2,
}

/// BERT with a pooled output: token ids to one vector a text.
#[derive(Module, Debug)]
pub struct Encoder {
    /// The transformer.
    pub bert: Bert,
    /// DPR's optional projection of the pooled state.
    pub projection: Option<Linear>,
    #[module(skip)]
    pooling: Pooling,
    #[module(skip)]
    normalization: Normalization,
}

/// Everything about an [`Encoder`] but its weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EncoderConfig {
    /// The transformer.
    #[serde(flatten)]
    pub bert: BertConfig,
    /// How states are pooled.
    #[serde(default)]
    pub pooling: Pooling,
    /// Whether vectors are normalised.
    #[serde(default)]
    pub normalization: Normalization,
    /// Put before each question (E5: `query: `, BGE: an instruction).
    #[serde(default)]
    pub question_prefix: String,
    /// Put before each passage (E5: `passage: `).
    #[serde(default)]
    pub passage_prefix: String,
    /// Longest input in tokens; longer passages are cut.
    #[serde(default)]
    pub max_seq_length: Option<usize>,
}

impl EncoderConfig {
    /// Freshly initialised weights.
    ///
    /// # Errors
    /// Those of [`BertConfig::init`].
    pub fn init(&self, device: &Device) -> Result<Encoder> {
        let projection = (self.bert.projection_dim > 0).then(|| {
            LinearConfig::new(self.bert.hidden_size, self.bert.projection_dim)
                .with_std(self.bert.initializer_range)
                .init(device)
        });
        Ok(Encoder {
            bert: self.bert.init(device)?,
            projection,
            pooling: self.pooling,
            normalization: self.normalization,
        })
    }

    /// Size of the vectors.
    pub fn dimension(&self) -> usize {
        match self.bert.projection_dim {
            0 => self.bert.hidden_size,
            projected => projected,
        }
    }

    /// Longest input in tokens.
    pub fn max_length(&self) -> usize {
        let positions = self.bert.max_position_embeddings;
        self.max_seq_length
            .map_or(positions, |own| own.min(positions))
    }

    fn is_dpr(&self) -> bool {
        self.bert.model_type == "dpr"
    }

    /// Fills an encoder from the tensors under `prefix`, such as
    /// `rag.question_encoder.question_encoder.`
    ///
    /// # Errors
    /// Those of [`Weights::fill`].
    pub fn load(&self, weights: &mut Weights, prefix: &str, device: &Device) -> Result<Encoder> {
        let mut encoder = self.init(device)?;
        let bert = if self.is_dpr() { "bert_model." } else { "" };
        encoder.bert = weights.fill(
            encoder.bert,
            &format!("{prefix}{bert}"),
            &BertConfig::names(),
        )?;
        if let Some(projection) = encoder.projection {
            let prefix = format!("{prefix}encode_proj.");
            encoder.projection = Some(weights.fill(projection, &prefix, &Names::default())?);
        }
        Ok(encoder)
    }

    /// Adds the encoder's tensors under `prefix`.
    pub fn store(&self, encoder: &Encoder, tensors: &mut Tensors, prefix: &str) {
        let bert = if self.is_dpr() { "bert_model." } else { "" };
        tensors.add(
            &encoder.bert,
            &format!("{prefix}{bert}"),
            &BertConfig::names(),
        );
        if let Some(projection) = &encoder.projection {
            tensors.add(
                projection,
                &format!("{prefix}encode_proj."),
                &Names::default(),
            );
        }
    }
}

impl Encoder {
    /// Vectors `[rows, dimension]` of the tokens.
    pub fn forward(
        &self,
        tokens: &TokenBatch,
        segments: Option<Tensor<2, Int>>,
        precision: Precision,
    ) -> Tensor<2> {
        let states = self.bert.forward(tokens, segments, precision);
        let [rows, _, hidden] = states.dims();
        let pooled = match self.pooling {
            Pooling::Cls => states.narrow(1, 0, 1).reshape([rows, hidden]),
            Pooling::Mean => {
                let mask = tokens.mask.clone().float().unsqueeze_dim::<3>(2);
                let sum = (states * mask.clone()).sum_dim(1);
                (sum / mask.sum_dim(1).clamp_min(1.0)).reshape([rows, hidden])
            }
        };
        let vectors = match &self.projection {
            Some(projection) => projection.forward(pooled, Precision::F32),
            None => pooled,
        };
        match self.normalization {
            Normalization::None => vectors,
            Normalization::L2 => {
                let length = vectors.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
                vectors / length
            }
        }
    }
}

/// An encoder with its tokenizer: the [`Embedder`](crate::Embedder) of DPR and of the BERT sentence encoders
/// (all-MiniLM, BGE, E5).
#[derive(Clone, Debug)]
pub struct TextEncoder {
    encoder: Encoder,
    // Its ids are in the vocabulary of the encoder, and `config` is the encoder's.
    tokenizer: Tokenizer,
    config: EncoderConfig,
    precision: Precision,
}

/// The module prefixes under which encoders are published, with and without a task head.
const PREFIXES: [&str; 4] = ["question_encoder.", "ctx_encoder.", "bert.", ""];

impl TextEncoder {
    /// An encoder, its tokenizer and its configuration, which must belong together.
    ///
    /// # Errors
    /// [`rag_core::Error::Vocabulary`].
    pub fn new(encoder: Encoder, tokenizer: Tokenizer, config: EncoderConfig) -> Result<Self> {
        tokenizer.fits(config.bert.vocab_size)?;
        Ok(Self {
            encoder,
            tokenizer,
            config,
            precision: Precision::F32,
        })
    }

    /// Reads a checkpoint folder of DPR (either encoder), of BERT, or of sentence-transformers, with
    /// the tokenizer in it.
    ///
    /// # Errors
    /// Those of [`Weights`] and [`Tokenizer::from_folder`].
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        Self::load_with(folder, Tokenizer::from_folder(folder)?, device)
    }

    /// Like [`TextEncoder::load`], for a folder without a tokenizer.
    ///
    /// # Errors
    /// Those of [`Weights`]; [`rag_core::Error::Vocabulary`].
    pub fn load_with(
        folder: impl AsRef<Path>,
        tokenizer: Tokenizer,
        device: &Device,
    ) -> Result<Self> {
        let (encoder, config) = load_encoder(folder, device)?;
        Self::new(encoder, tokenizer, config)
    }

    /// The weights.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Sizes of the encoder, pooling, prefixes and the longest input.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The format of matrix products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Computes matrix products in `precision`. On the CPU, bf16 and int8 round the weights for good, which makes
    /// them those of another encoder: a knowledge base is opened with the one, rounded or not, that made it.
    ///
    /// # Errors
    /// Those of [`rag_core::nn::with_precision`].
    pub fn with_precision(mut self, precision: Precision) -> Result<Self> {
        let device = self.encoder.bert.device();
        let bert = self.encoder.bert;
        self.encoder.bert = with_precision(bert, &device, precision, |bert| bert.pack(precision))?;
        self.precision = precision;
        Ok(self)
    }

    /// The same tokenizer, configuration and precision with other weights, such as those after training.
    #[must_use]
    pub fn with_encoder(&self, encoder: Encoder) -> Self {
        Self {
            encoder,
            tokenizer: self.tokenizer.clone(),
            config: self.config.clone(),
            precision: self.precision,
        }
    }

    /// Writes the checkpoint that [`TextEncoder::load`] reads; `role` names DPR's module.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`].
    pub fn save(&self, folder: impl AsRef<Path>, role: Role) -> Result<()> {
        let folder = folder.as_ref();
        let (prefix, architecture) = match (self.config.is_dpr(), role) {
            (true, Role::Question) => ("question_encoder.", "DPRQuestionEncoder"),
            (true, Role::Context) => ("ctx_encoder.", "DPRContextEncoder"),
            (false, _) => ("", "BertModel"),
        };
        let mut tensors = Tensors::default();
        self.config.store(&self.encoder, &mut tensors, prefix);
        let mut config = serde_json::to_value(&self.config)
            .map_err(rag_core::Error::json(folder.join("config.json")))?;
        config["architectures"] = json!([architecture]);
        write_json(folder.join("config.json"), &config)?;
        write_safetensors(folder.join("model.safetensors"), &tensors)?;
        self.save_tokenizer(folder)
    }

    /// Writes the tokenizer's files.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`].
    pub fn save_tokenizer(&self, folder: impl AsRef<Path>) -> Result<()> {
        let settings = tokenizer_settings(self.config.max_length());
        Ok(self.tokenizer.save(folder, &settings)?)
    }

    /// Vectors `[texts, dimension]` of already tokenized texts.
    pub fn embed(&self, texts: &[Encoding]) -> Array2<f32> {
        let device = self.encoder.bert.device();
        let pad = self.config.bert.pad_token_id;
        by_length(
            texts,
            self.config.dimension(),
            pad,
            &device,
            |tokens, segments| (self.encoder).forward(tokens, Some(segments), self.precision),
        )
    }

    /// The tokens of questions.
    ///
    /// # Errors
    /// [`EncoderError::QuestionTooLong`]: a question is never cut.
    pub fn tokenize_questions(&self, questions: &[&str]) -> Result<Vec<Encoding>> {
        questions
            .iter()
            .map(|question| {
                let text = format!("{}{question}", self.config.question_prefix);
                let encoding = self.tokenizer.encode(&text)?;
                match encoding.ids.len() {
                    tokens if tokens > self.config.max_length() => {
                        Err(EncoderError::QuestionTooLong {
                            tokens,
                            longest: self.config.max_length(),
                        }
                        .into())
                    }
                    _ => Ok(encoding),
                }
            })
            .collect()
    }

    /// The tokens of passages, cut to the encoder's longest input.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn tokenize_passages(&self, passages: &[Passage]) -> Result<Vec<Encoding>> {
        let prefix = &self.config.passage_prefix;
        let longest = self.config.max_length();
        if self.config.is_dpr() {
            // DPR encodes title and text as a pair.
            let pairs = passages
                .iter()
                .map(|passage| (passage.title.as_str(), passage.text.as_str()))
                .collect();
            return Ok(self.tokenizer.encode_batch(pairs, longest)?);
        }
        let texts = passages
            .iter()
            .map(|passage| format!("{prefix}{}", passage.titled()))
            .collect();
        Ok(self.tokenizer.encode_batch::<String>(texts, longest)?)
    }
}

/// Reads the weights and configuration of an encoder's checkpoint folder, without its tokenizer.
///
/// # Errors
/// Those of [`Weights`]; [`rag_core::Error::Config`] for anything but BERT and DPR.
pub fn load_encoder(folder: impl AsRef<Path>, device: &Device) -> Result<(Encoder, EncoderConfig)> {
    let folder = folder.as_ref();
    let mut config: EncoderConfig = read_json(folder.join("config.json"))?;
    if !["bert", "dpr"].contains(&config.bert.model_type.as_str()) {
        return Err(Error::Core(rag_core::Error::Config {
            field: "model_type".into(),
            found: config.bert.model_type,
            expected: "bert or dpr".into(),
        }));
    }
    sentence_transformers(folder, &mut config)?;
    let mut weights = Weights::open(folder)?;
    let prefix = weights.find_prefix(&PREFIXES).unwrap_or_default();
    let encoder = config.load(&mut weights, prefix, device)?;
    weights.finish(|name| {
        name.contains("pooler.") || name.ends_with("position_ids") || name.starts_with("cls.")
    })?;
    Ok((encoder, config))
}

/// Reads the settings that sentence-transformers keeps beside `config.json`.
fn sentence_transformers(folder: &Path, config: &mut EncoderConfig) -> Result<()> {
    #[derive(Deserialize)]
    struct Step {
        r#type: String,
    }
    #[derive(Deserialize)]
    struct PoolingFile {
        #[serde(default)]
        pooling_mode_mean_tokens: bool,
        #[serde(default)]
        pooling_mode_cls_token: bool,
    }
    #[derive(Deserialize)]
    struct Limits {
        max_seq_length: Option<usize>,
    }
    let pooling = folder.join("1_Pooling/config.json");
    if pooling.is_file() {
        let modes: PoolingFile = read_json(&pooling)?;
        config.pooling = match (modes.pooling_mode_cls_token, modes.pooling_mode_mean_tokens) {
            (true, false) => Pooling::Cls,
            (false, true) => Pooling::Mean,
            _ => {
                return Err(Error::Core(rag_core::Error::Config {
                    field: "1_Pooling/config.json".into(),
                    found: "another pooling, or several".into(),
                    expected: "pooling_mode_cls_token or pooling_mode_mean_tokens".into(),
                }));
            }
        };
    }
    let modules = folder.join("modules.json");
    if modules.is_file() {
        let steps: Vec<Step> = read_json(&modules)?;
        if steps.iter().any(|step| step.r#type.ends_with("Normalize")) {
            config.normalization = Normalization::L2;
        }
    }
    let limits = folder.join("sentence_bert_config.json");
    if limits.is_file() {
        let limits: Limits = read_json(&limits)?;
        config.max_seq_length = limits.max_seq_length.or(config.max_seq_length);
    }
    Ok(())
}
