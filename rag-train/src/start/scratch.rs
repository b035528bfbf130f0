//! A small model from nothing but the user's texts: tokenizers trained on them, weights at random.

// Names a family because: a model from nothing is a T5, whichever families there are.

use burn::tensor::Device;
use rag_core::{Passage, Tokenizer, marginal::RagModel};
use rag_generate::{
    Checkpoint, Rag, RagConfig,
    generator::{GeneratorConfig, T5Config},
};
use rag_retrieve::{
    EncoderConfig, Normalization, Pooling, RetrieverError, Storage, TextEncoder,
    build_knowledge_base, encoder::BertConfig,
};

use super::{
    inverse_cloze::{self, InverseCloze},
    tokenizers::{encoder_tokenizer, generator_tokenizer},
};
use crate::error::Result;

/// Sizes of a model that is trained from nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScratchConfig {
    /// RAG-Sequence or RAG-Token.
    pub model: RagModel,
    /// Passages retrieved for a question.
    pub n_docs: usize,
    /// Size of the question and passage vectors.
    pub encoder_width: usize,
    /// Layers of the encoders.
    pub encoder_layers: usize,
    /// Size of the generator's states.
    pub generator_width: usize,
    /// Layers of the generator's encoder, and of its decoder.
    pub generator_layers: usize,
    /// Heads of every attention.
    pub heads: usize,
    /// Dropout everywhere.
    pub dropout: f64,
    /// Most tokens of each of the two vocabularies.
    pub vocabulary: usize,
    /// Longest context in tokens.
    pub max_combined_length: usize,
    /// Longest answer in tokens.
    pub max_answer_length: usize,
    /// How the encoders learn from the passages alone.
    pub inverse_cloze: InverseCloze,
    /// Seed of the weights.
    pub seed: u64,
}

impl Default for ScratchConfig {
    fn default() -> Self {
        Self {
            model: RagModel::Sequence,
            n_docs: 5,
            encoder_width: 128,
            encoder_layers: 1,
            generator_width: 128,
            generator_layers: 2,
            heads: 4,
            dropout: 0.0,
            vocabulary: 8_000,
            max_combined_length: 160,
            max_answer_length: 16,
            inverse_cloze: InverseCloze::default(),
            seed: 0,
        }
    }
}

impl ScratchConfig {
    /// A model with random weights over `passages`, with vocabularies learnt from them and from
    /// `texts`, such as the training questions and answers.
    ///
    /// Both encoders begin as the same random projection of the words of a text, so that texts with
    /// common words are already near each other.
    ///
    /// # Errors
    /// Those of [`ScratchConfig::init_around`].
    pub fn init(&self, passages: Vec<Passage>, texts: &[&str], device: &Device) -> Result<Rag> {
        device.seed(self.seed);
        let tokenizer = encoder_tokenizer(&corpus(&passages, texts), self.vocabulary)?;
        let config = self.encoder_config(&tokenizer);
        let encoder = TextEncoder::new(config.init(device)?, tokenizer, config)?;
        let encoder = inverse_cloze::pretrain(encoder, &passages, self.inverse_cloze)?;
        self.init_around(encoder, passages, texts, device)
    }

    /// A generator with random weights around an encoder that is there already, such as
    /// all-MiniLM-L6-v2; it becomes both the question encoder and the passages'.
    ///
    /// # Errors
    /// [`rag_retrieve::RetrieverError::TooFewPassages`]; those of the tokenizers and of
    /// [`build_knowledge_base`].
    pub fn init_around(
        &self,
        encoder: TextEncoder,
        passages: Vec<Passage>,
        texts: &[&str],
        device: &Device,
    ) -> Result<Rag> {
        if self.n_docs > passages.len() {
            let error = RetrieverError::TooFewPassages {
                n_docs: self.n_docs,
                passages: passages.len(),
            };
            return Err(rag_retrieve::Error::from(error).into());
        }
        let tokenizer = generator_tokenizer(&corpus(&passages, texts), self.vocabulary)?;
        device.seed(self.seed);
        let config = self.rag_config(encoder.config().clone(), &tokenizer);
        let mut checkpoint = Checkpoint::new(config, device)?;
        checkpoint.question_encoder = encoder.encoder().clone();
        let knowledge = build_knowledge_base(passages, &encoder, Storage::F32, |_| {})?;
        let question_tokenizer = encoder.tokenizer().clone();
        let rag = Rag::new(
            checkpoint,
            question_tokenizer,
            tokenizer,
            encoder,
            knowledge,
        )?;
        let generation = (rag.generation().clone()).with_max_length(self.max_answer_length);
        Ok(rag.with_generation(generation))
    }

    fn encoder_config(&self, tokenizer: &Tokenizer) -> EncoderConfig {
        EncoderConfig {
            bert: BertConfig {
                vocab_size: tokenizer.vocabulary(),
                hidden_size: self.encoder_width,
                num_hidden_layers: self.encoder_layers,
                num_attention_heads: self.heads,
                intermediate_size: 2 * self.encoder_width,
                hidden_dropout_prob: self.dropout,
                attention_probs_dropout_prob: self.dropout,
                ..BertConfig::default()
            },
            pooling: Pooling::Mean,
            normalization: Normalization::None,
            ..EncoderConfig::default()
        }
    }

    fn rag_config(&self, question_encoder: EncoderConfig, generator: &Tokenizer) -> RagConfig {
        let t5 = T5Config {
            vocab_size: generator.vocabulary(),
            d_model: self.generator_width,
            d_kv: self.generator_width / self.heads,
            d_ff: 2 * self.generator_width,
            num_layers: self.generator_layers,
            num_heads: self.heads,
            dropout_rate: self.dropout,
            ..T5Config::default()
        };
        let mut config = RagConfig::new(self.model, question_encoder, GeneratorConfig::T5(t5));
        config.n_docs = self.n_docs;
        config.max_combined_length = self.max_combined_length;
        config
    }
}

fn corpus<'a>(passages: &'a [Passage], texts: &[&'a str]) -> Vec<&'a str> {
    passages
        .iter()
        .flat_map(|passage| [passage.title.as_str(), passage.text.as_str()])
        .chain(texts.iter().copied())
        .collect()
}
