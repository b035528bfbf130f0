use burn::{
    module::{Initializer, Module},
    nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig},
    tensor::{Device, FloatDType, Int, Tensor},
};
use rag_core::{
    Result, TokenBatch,
    checkpoint::Names,
    nn::{
        Attention, AttentionConfig, FeedForward, FeedForwardConfig, LayerNorm, LayerNormConfig,
        Precision, activation, among_workers, dropout, padding_bias,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `config.json` of BERT (Devlin et al. 2019) and of DPR's encoders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// `bert` or `dpr`.
    pub model_type: String,
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Size of the states.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Size of the feed-forward's hidden layer.
    pub intermediate_size: usize,
    /// Name of the activation.
    pub hidden_act: String,
    /// Dropout of the states.
    pub hidden_dropout_prob: f64,
    /// Dropout of the attention weights.
    pub attention_probs_dropout_prob: f64,
    /// Longest input in tokens.
    pub max_position_embeddings: usize,
    /// Segments.
    pub type_vocab_size: usize,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// The padding token.
    pub pad_token_id: u32,
    /// DPR: size of the projection of the pooled output, 0 for none.
    pub projection_dim: usize,
}

impl Default for BertConfig {
    /// bert-base-uncased.
    fn default() -> Self {
        Self {
            model_type: "bert".into(),
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            projection_dim: 0,
        }
    }
}

/// BERT as an encoder: token ids to states.
#[derive(Module, Debug)]
pub struct Bert {
    words: Embedding,
    positions: Embedding,
    segments: Embedding,
    embedding_norm: LayerNorm,
    dropout: Dropout,
    layers: Vec<BertLayer>,
}

#[derive(Module, Debug)]
struct BertLayer {
    attention: Attention,
    attention_norm: LayerNorm,
    feed_forward: FeedForward,
    norm: LayerNorm,
    dropout: Dropout,
}

/// The `tokenizer_config.json` that transformers wants beside BERT's tokenizer.
pub(crate) fn tokenizer_settings(longest: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "model_max_length": longest,
    })
}

impl BertConfig {
    /// Names of the parameters in checkpoints, after the prefix.
    pub fn names() -> Names {
        Names::new(&[
            (".words.", ".embeddings.word_embeddings."),
            (".positions.", ".embeddings.position_embeddings."),
            (".segments.", ".embeddings.token_type_embeddings."),
            (".embedding_norm.", ".embeddings.LayerNorm."),
            (".layers.", ".encoder.layer."),
            (".attention.query.", ".attention.self.query."),
            (".attention.key.", ".attention.self.key."),
            (".attention.value.", ".attention.self.value."),
            (".attention.output.", ".attention.output.dense."),
            (".attention_norm.", ".attention.output.LayerNorm."),
            (".feed_forward.up.", ".intermediate.dense."),
            (".feed_forward.down.", ".output.dense."),
            (".norm.", ".output.LayerNorm."),
            (".gamma", ".weight"),
            (".beta", ".bias"),
        ])
    }

    /// Freshly initialised weights.
    ///
    /// # Errors
    /// [`rag_core::Error::Config`] for an unknown activation, or heads that do not divide the states.
    pub fn init(&self, device: &Device) -> Result<Bert> {
        let d_model = self.hidden_size;
        if self.num_attention_heads == 0 || !d_model.is_multiple_of(self.num_attention_heads) {
            return Err(rag_core::Error::Config {
                field: "num_attention_heads".into(),
                found: self.num_attention_heads.to_string(),
                expected: format!("a divisor of hidden_size {d_model}"),
            });
        }
        let embedding = |rows| {
            EmbeddingConfig::new(rows, d_model)
                .with_initializer(Initializer::Normal {
                    mean: 0.0,
                    std: self.initializer_range,
                })
                .init(device)
        };
        let norm = || {
            LayerNormConfig::new(d_model)
                .with_epsilon(self.layer_norm_eps)
                .init(device)
        };
        let dropout = DropoutConfig::new(self.hidden_dropout_prob);
        let d_head = d_model / self.num_attention_heads;
        let attention = AttentionConfig::new(
            d_model,
            self.num_attention_heads,
            d_head,
            (d_head as f64).powf(-0.5),
        )
        .with_dropout(self.attention_probs_dropout_prob)
        .with_std(self.initializer_range);
        let feed_forward = FeedForwardConfig::new(
            d_model,
            self.intermediate_size,
            activation(&self.hidden_act)?,
        )
        .with_std(self.initializer_range);
        Ok(Bert {
            words: embedding(self.vocab_size),
            positions: embedding(self.max_position_embeddings),
            segments: embedding(self.type_vocab_size),
            embedding_norm: norm(),
            dropout: dropout.init(),
            layers: (0..self.num_hidden_layers)
                .map(|_| BertLayer {
                    attention: attention.init(device),
                    attention_norm: norm(),
                    feed_forward: feed_forward.init(device),
                    norm: norm(),
                    dropout: dropout.init(),
                })
                .collect(),
        })
    }
}

impl Bert {
    /// States `[rows, length, hidden]` of the tokens, with `segments` `[rows, length]` all 0 if
    /// none are given.
    pub fn forward(
        &self,
        tokens: &TokenBatch,
        segments: Option<Tensor<2, Int>>,
        precision: Precision,
    ) -> Tensor<3> {
        among_workers(&self.device(), || self.states(tokens, segments, precision))
    }

    fn states(
        &self,
        tokens: &TokenBatch,
        segments: Option<Tensor<2, Int>>,
        precision: Precision,
    ) -> Tensor<3> {
        let [_, length] = tokens.dims();
        let device = tokens.ids.device();
        let positions = Tensor::<1, Int>::arange(0..length as i64, &device).unsqueeze::<2>();
        let segments = segments.unwrap_or_else(|| tokens.ids.zeros_like());
        let embedded = self.words.forward(tokens.ids.clone())
            + self.segments.forward(segments)
            + self.positions.forward(positions);
        let embedded = self.embedding_norm.forward(embedded.cast(FloatDType::F32));
        let mask = padding_bias(&tokens.mask);
        self.layers
            .iter()
            .fold(dropout(&self.dropout, embedded), |states, layer| {
                layer.forward(states, mask.clone(), precision)
            })
    }

    /// Packs the linear layers: see [`rag_core::nn::Linear::pack`].
    #[must_use]
    pub fn pack(mut self, precision: Precision) -> Self {
        for layer in &mut self.layers {
            layer.attention = layer.attention.clone().pack(precision);
            layer.feed_forward = layer.feed_forward.clone().pack(precision);
        }
        self
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.words.weight.lazy_device()
    }

    /// Longest input in tokens.
    pub fn max_length(&self) -> usize {
        self.positions.weight.lazy_shape().dims::<2>()[0]
    }
}

impl BertLayer {
    fn forward(&self, states: Tensor<3>, mask: Tensor<4>, precision: Precision) -> Tensor<3> {
        let memory = self.attention.keys_values(states.clone(), precision);
        let attended = self
            .attention
            .forward(states.clone(), &memory, Some(mask), precision);
        let attended = dropout(&self.dropout, attended);
        let states = self.attention_norm.of_sum(attended, states);
        let transformed = self.feed_forward.forward(states.clone(), precision);
        self.norm
            .of_sum(dropout(&self.dropout, transformed), states)
    }
}
