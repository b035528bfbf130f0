//! Rerankers: question and passage read together.

use std::{collections::BTreeMap, fmt, path::Path};

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use rag_core::{
    Encoding, Passage, TokenBatch, Tokenizer,
    checkpoint::{Names, Tensors, Weights, read_json, write_json, write_safetensors},
    nn::{Linear, LinearConfig, Precision},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    encoder::{Bert, BertConfig, by_length, error::EncoderError, tokenizer_settings},
    error::{Error, Result},
};

/// Judges passages that were found for a question.
pub trait Reranker: fmt::Debug + Send + Sync {
    /// A score for each of `passages`, in their order, larger for better ones.
    ///
    /// # Errors
    /// [`EncoderError::QuestionTooLong`]; those of the tokenizer.
    fn rerank(&self, question: &str, passages: &[Passage]) -> Result<Vec<f32>>;
}

/// BERT with a classification head of one label (`BertForSequenceClassification`), as cross-encoders
/// are published (Nogueira and Cho 2019, arXiv 1901.04085): all of MS MARCO's `ms-marco-MiniLM` family.
#[derive(Module, Debug)]
pub struct PairScorer {
    /// The transformer.
    pub bert: Bert,
    /// The layer that pools the first token's state, under a tanh.
    pub pooler: Linear,
    /// To one number, the log-odds that the passage is relevant.
    pub classifier: Linear,
}

impl PairScorer {
    /// Freshly initialised weights.
    ///
    /// # Errors
    /// Those of [`BertConfig::init`].
    pub fn new(config: &BertConfig, device: &Device) -> Result<Self> {
        let linear = |outputs| {
            LinearConfig::new(config.hidden_size, outputs)
                .with_std(config.initializer_range)
                .init(device)
        };
        Ok(Self {
            bert: config.init(device)?,
            pooler: linear(config.hidden_size),
            classifier: linear(1),
        })
    }

    /// Scores `[rows]` of pairs `[rows, length]`, with the segment of each token.
    pub fn forward(
        &self,
        pairs: &TokenBatch,
        segments: Tensor<2, Int>,
        precision: Precision,
    ) -> Tensor<1> {
        let states = self.bert.forward(pairs, Some(segments), precision);
        let [rows, _, hidden] = states.dims();
        let first = states.narrow(1, 0, 1).reshape([rows, hidden]);
        let pooled = self.pooler.forward(first, Precision::F32).tanh();
        let scores = self.classifier.forward(pooled, Precision::F32);
        scores.squeeze_dim(1)
    }
}

/// A [`PairScorer`] with its tokenizer.
#[derive(Clone, Debug)]
pub struct CrossEncoder {
    /// The weights.
    pub model: PairScorer,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Everything else.
    pub config: BertConfig,
    /// The format of matrix products.
    pub precision: Precision,
}

/// The names of the parts in checkpoints.
const BERT: &str = "bert.";
const POOLER: &str = "bert.pooler.dense.";
const CLASSIFIER: &str = "classifier.";

impl CrossEncoder {
    /// A model, its tokenizer and its configuration, which must belong together.
    ///
    /// # Errors
    /// [`rag_core::Error::Vocabulary`].
    pub fn new(model: PairScorer, tokenizer: Tokenizer, config: BertConfig) -> Result<Self> {
        tokenizer.fits(config.vocab_size)?;
        Ok(Self {
            model,
            tokenizer,
            config,
            precision: Precision::F32,
        })
    }

    /// Reads the folder of a `BertForSequenceClassification` with one label, and the tokenizer in it.
    ///
    /// # Errors
    /// Those of [`Weights`] and [`Tokenizer::from_folder`]; [`rag_core::Error::Config`] for another model,
    /// or another number of labels.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            id2label: BTreeMap<String, Value>,
        }
        let path = folder.join("config.json");
        let config: BertConfig = read_json(&path)?;
        let head: Head = read_json(&path)?;
        let expect = |field: &str, found: String, expected: &str| {
            Err(Error::Core(rag_core::Error::Config {
                field: field.into(),
                found,
                expected: expected.into(),
            }))
        };
        if config.model_type != "bert" {
            return expect("model_type", config.model_type, "bert");
        }
        if head.id2label.len() != 1 {
            let labels = format!("{} labels", head.id2label.len());
            return expect("id2label", labels, "one label, whose logit is the score");
        }
        let PairScorer {
            bert,
            pooler,
            classifier,
        } = PairScorer::new(&config, device)?;
        let mut weights = Weights::open(folder)?;
        let model = PairScorer {
            bert: weights.fill(bert, BERT, &BertConfig::names())?,
            pooler: weights.fill(pooler, POOLER, &Names::default())?,
            classifier: weights.fill(classifier, CLASSIFIER, &Names::default())?,
        };
        weights.finish(|name| name.ends_with("position_ids"))?;
        Self::new(model, Tokenizer::from_folder(folder)?, config)
    }

    /// Writes the folder that [`CrossEncoder::load`] reads and transformers opens.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let path = folder.join("config.json");
        let mut config =
            serde_json::to_value(&self.config).map_err(rag_core::Error::json(&path))?;
        config["architectures"] = json!(["BertForSequenceClassification"]);
        config["id2label"] = json!({"0": "LABEL_0"});
        config["label2id"] = json!({"LABEL_0": 0});
        let mut tensors = Tensors::default();
        tensors.add(&self.model.bert, BERT, &BertConfig::names());
        tensors.add(&self.model.pooler, POOLER, &Names::default());
        tensors.add(&self.model.classifier, CLASSIFIER, &Names::default());
        write_json(&path, &config)?;
        write_safetensors(folder.join("model.safetensors"), &tensors)?;
        let settings = tokenizer_settings(self.config.max_position_embeddings);
        Ok(self.tokenizer.save(folder, &settings)?)
    }

    fn tokenize(&self, question: &str, passages: &[Passage]) -> Result<Vec<Encoding>> {
        let longest = self.config.max_position_embeddings;
        let tokens = self.tokenizer.encode_pair(question, "")?.ids.len();
        if tokens > longest {
            return Err(EncoderError::QuestionTooLong { tokens, longest }.into());
        }
        let pairs = passages
            .iter()
            .map(|passage| (question.to_owned(), passage.titled()))
            .collect();
        Ok(self.tokenizer.encode_pairs(pairs, longest)?)
    }
}

impl Reranker for CrossEncoder {
    fn rerank(&self, question: &str, passages: &[Passage]) -> Result<Vec<f32>> {
        let pairs = self.tokenize(question, passages)?;
        let device = self.model.bert.device();
        let pad = self.config.pad_token_id;
        let scores = by_length(&pairs, 1, pad, &device, |tokens, segments| {
            let scores = self.model.forward(tokens, segments, self.precision);
            scores.unsqueeze_dim(1)
        });
        Ok(scores.into_iter().collect())
    }
}
