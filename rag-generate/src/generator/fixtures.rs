//! Tiny generators of every family, for the tests of all crates: what holds for one of [`ALL`] has to hold for each.

use std::fmt;

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use rag_core::{device, nn::RopeParameters};
use serde_json::{Map, Value};

use super::{BartConfig, CausalConfig, Generator, GeneratorConfig, T5Config};

/// A kind of generator that tests run over.
#[derive(Clone, Copy)]
pub struct Fixture {
    /// Also that of its golden folder, `tests/golden/dpr-<name>`.
    pub name: &'static str,
    /// Its configuration at these sizes.
    pub config: fn(Tiny) -> GeneratorConfig,
    /// Which tokenizer goes with it.
    pub tokenizer: Words,
    /// The last names of all its linear projections in a checkpoint.
    pub projections: &'static str,
}

/// The tokenizers that tests make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Byte-level BPE, with `<s>`, `<pad>` and `</s>` as tokens 0 to 2.
    ByteLevel,
    /// SentencePiece, with `<pad>` and `</s>` as tokens 0 and 1.
    Pieces,
}

/// Sizes of a fixture.
#[derive(Clone, Copy, Debug)]
pub struct Tiny {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Size of the states.
    pub d_model: usize,
    /// Heads of every attention.
    pub heads: usize,
    /// Size of the hidden layers.
    pub hidden: usize,
    /// Layers that read contexts, where they are not the decoder's.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Longest text, where positions have a limit.
    pub positions: usize,
}

impl Default for Tiny {
    /// A generator that can say a dozen words.
    fn default() -> Self {
        Self {
            vocabulary: 12,
            d_model: 16,
            heads: 2,
            hidden: 24,
            encoder_layers: 1,
            decoder_layers: 2,
            positions: 16,
        }
    }
}

/// Every family, with the variants of it that take another path.
pub const ALL: [Fixture; 8] = [
    Fixture::Bart,
    Fixture::T5,
    Fixture::GatedT5,
    Fixture::Llama,
    Fixture::Qwen2,
    Fixture::Qwen3,
    Fixture::Gemma2,
    Fixture::Gemma3,
];

#[allow(non_upper_case_globals)]
impl Fixture {
    /// BART.
    pub const Bart: Self = Self {
        name: "bart",
        config: |tiny| GeneratorConfig::Bart(bart(tiny)),
        tokenizer: Words::ByteLevel,
        projections: "q_proj k_proj v_proj out_proj fc1 fc2",
    };
    /// T5 1.0, whose head is tied to the embeddings.
    pub const T5: Self = Self {
        name: "t5",
        config: |tiny| GeneratorConfig::T5(t5(tiny)),
        tokenizer: Words::Pieces,
        projections: "q k v o wi wo",
    };
    /// T5 1.1.
    pub const GatedT5: Self = Self {
        name: "t5-gated",
        config: |tiny| {
            GeneratorConfig::T5(T5Config {
                feed_forward_proj: "gated-gelu".into(),
                tie_word_embeddings: false,
                ..t5(tiny)
            })
        },
        tokenizer: Words::Pieces,
        projections: "q k v o wi_0 wi_1 wo lm_head",
    };
    /// Llama, whose head is tied to the embeddings.
    pub const Llama: Self = Self {
        name: "llama",
        config: |tiny| GeneratorConfig::Causal(causal(tiny, CausalConfig::llama())),
        tokenizer: Words::ByteLevel,
        projections: "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    };
    /// Qwen2, with biases, and with the frequencies of its positions stretched.
    pub const Qwen2: Self = Self {
        name: "qwen2",
        config: |tiny| {
            let scaling = RopeParameters {
                rope_type: Some("linear".into()),
                factor: Some(2.0),
                ..RopeParameters::default()
            };
            GeneratorConfig::Causal(CausalConfig {
                rope_scaling: Some(scaling),
                ..causal(tiny, CausalConfig::qwen2())
            })
        },
        tokenizer: Words::ByteLevel,
        projections: "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    };
    /// Qwen3, with norms of queries and keys, heads of a size of their own, and a head of its own.
    pub const Qwen3: Self = Self {
        name: "qwen3",
        config: |tiny| {
            GeneratorConfig::Causal(CausalConfig {
                head_dim: Some(tiny.d_model / tiny.heads + 2),
                tie_word_embeddings: false,
                ..causal(tiny, CausalConfig::qwen3())
            })
        },
        tokenizer: Words::ByteLevel,
        projections: "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj lm_head",
    };
    /// Gemma 2, with norms around its blocks, and with caps that bend its scores and logits.
    pub const Gemma2: Self = Self {
        name: "gemma2",
        config: |tiny| {
            GeneratorConfig::Causal(CausalConfig {
                head_dim: Some(tiny.d_model / tiny.heads + 2),
                query_pre_attn_scalar: Some(4),
                attn_logit_softcapping: Some(1.0),
                final_logit_softcapping: Some(4.0),
                ..causal(tiny, CausalConfig::gemma2())
            })
        },
        tokenizer: Words::ByteLevel,
        projections: "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    };
    /// Gemma 3, with norms around its blocks and of queries and keys, and with positions of their own in every second layer.
    pub const Gemma3: Self = Self {
        name: "gemma3",
        config: |tiny| {
            GeneratorConfig::Causal(CausalConfig {
                head_dim: Some(tiny.d_model / tiny.heads + 4),
                query_pre_attn_scalar: Some(8),
                rope_local_base_freq: Some(50.0),
                sliding_window_pattern: Some(2),
                ..causal(tiny, CausalConfig::gemma3())
            })
        },
        tokenizer: Words::ByteLevel,
        projections: "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    };
}

/// Half as many heads of keys as of queries.
fn causal(tiny: Tiny, defaults: CausalConfig) -> CausalConfig {
    CausalConfig {
        vocab_size: tiny.vocabulary,
        hidden_size: tiny.d_model,
        intermediate_size: tiny.hidden,
        num_hidden_layers: tiny.decoder_layers,
        num_attention_heads: tiny.heads,
        num_key_value_heads: Some((tiny.heads / 2).max(1)),
        head_dim: None,
        max_position_embeddings: tiny.positions,
        tie_word_embeddings: true,
        bos_token_id: Some(0),
        eos_token_id: vec![2],
        pad_token_id: Some(1),
        ..defaults
    }
}

fn bart(tiny: Tiny) -> BartConfig {
    BartConfig {
        vocab_size: tiny.vocabulary,
        d_model: tiny.d_model,
        encoder_layers: tiny.encoder_layers,
        decoder_layers: tiny.decoder_layers,
        encoder_attention_heads: tiny.heads,
        decoder_attention_heads: tiny.heads,
        encoder_ffn_dim: tiny.hidden,
        decoder_ffn_dim: tiny.hidden,
        max_position_embeddings: tiny.positions,
        forced_eos_token_id: None,
        ..BartConfig::default()
    }
}

fn t5(tiny: Tiny) -> T5Config {
    T5Config {
        vocab_size: tiny.vocabulary,
        d_model: tiny.d_model,
        d_kv: tiny.d_model / tiny.heads,
        d_ff: tiny.hidden,
        num_layers: tiny.encoder_layers,
        num_decoder_layers: Some(tiny.decoder_layers),
        num_heads: tiny.heads,
        ..T5Config::default()
    }
}

impl Fixture {
    /// The configuration at these sizes, and a generator on the CPU whose weights follow from `seed`.
    ///
    /// # Panics
    /// If the sizes do not go together.
    pub fn generator(&self, tiny: Tiny, seed: u64) -> (GeneratorConfig, Generator) {
        let config = (self.config)(tiny);
        match device("cpu").and_then(|cpu| config.init(&cpu)) {
            Ok(generator) => (config, seeded(generator, seed)),
            Err(error) => panic!("{}: {error}", self.name),
        }
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Fixture {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The same configuration with fields of its `config.json` changed.
///
/// # Panics
/// If it is not a configuration any more.
pub fn changed(
    config: &GeneratorConfig,
    change: impl FnOnce(&mut Map<String, Value>),
) -> GeneratorConfig {
    let changed = serde_json::to_value(config).and_then(|mut fields| {
        if let Value::Object(fields) = &mut fields {
            change(fields);
        }
        serde_json::from_value(fields)
    });
    match changed {
        Ok(config) => config,
        Err(error) => panic!("{config:?}: {error}"),
    }
}

/// The same configuration without dropout.
pub fn without_dropout(config: &GeneratorConfig) -> GeneratorConfig {
    changed(config, |fields| {
        for (name, value) in fields {
            if name.contains("dropout") {
                *value = 0.0.into();
            }
        }
    })
}

/// The same module with weights that follow from `seed` alone, on every machine.
pub fn seeded<M: Module>(module: M, seed: u64) -> M {
    module.map(&mut Fill(Random(seed)))
}

/// Numbers that follow from a seed on every machine (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From 0 to `end`, without it.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From -1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}

/// Matrices from -0.5 to 0.5; vectors (norms, biases) a little off what they were.
struct Fill(Random);

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let shape = tensor.shape();
            let scale = if D == 1 { 0.05 } else { 0.5 };
            let values: Vec<f32> = (0..shape.num_elements())
                .map(|_| self.0.unit() * scale)
                .collect();
            let drawn = Tensor::from_data(TensorData::new(values, shape), &tensor.device());
            if D == 1 { tensor + drawn } else { drawn }
        })
    }
}
