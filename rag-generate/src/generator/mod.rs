//! Generators: contexts and the tokens of an answer to log-probabilities, a folder for each family.
//!
//! ```text
//! Generator ── Model   read contexts into Memory, states at Places, Head, checkpoint names
//! GeneratorConfig ── Family   vocabulary, window, prompt, decoding defaults, adapters, sizes
//! ```

mod bart;
mod causal;
pub mod family;
#[doc(hidden)]
pub mod fixtures;
mod head;
mod memory;
mod places;
mod prompt;
mod sizes;
mod t5;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use rag_core::{
    Result, TokenBatch,
    checkpoint::{Tensors, Weights},
    nn::{Precision, among_workers, with_precision},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::decode::GenerationConfig;
use family::{Family, Model};

pub use bart::{Bart, BartConfig};
pub use causal::{Causal, CausalConfig, LayerType, ModelType};
pub use head::{Head, HeadConfig};
pub use memory::{Cache, Memory};
pub use places::{Places, Positions};
pub use prompt::Prompt;
pub use sizes::{Dropouts, Sizes, StackSizes};
pub use t5::{T5, T5Config};

/// `model_type` of the decoders alone.
pub(crate) const LANGUAGE_MODELS: &[&str] = CausalConfig::MODEL_TYPES;

/// Makes both enums and all that tells their variants apart, so that a family is one line in each list. `MODEL_TYPES` of
/// a configuration are the values of `model_type` in its files.
macro_rules! families {
    (
        $(#[$on_models:meta])* $models:ident { $($(#[$on_model:meta])* $model:ident($weights:ident),)* }
        $(#[$on_configs:meta])* $configs:ident { $($(#[$on_config:meta])* $config:ident($settings:ident),)* }
    ) => {
        $(#[$on_models])*
        pub enum $models { $($(#[$on_model])* $model($weights),)* }

        $(#[$on_configs])*
        pub enum $configs { $($(#[$on_config])* $config($settings),)* }

        $(impl From<$weights> for $models {
            fn from(model: $weights) -> Self {
                Self::$model(model)
            }
        })*

        impl $models {
            /// What the family does.
            pub fn model(&self) -> &dyn Model {
                match self { $(Self::$model(model) => model,)* }
            }

            fn model_mut(&mut self) -> &mut dyn Model {
                match self { $(Self::$model(model) => model,)* }
            }

            fn pack(self, precision: Precision) -> Self {
                match self { $(Self::$model(model) => model.pack(precision).into(),)* }
            }

            fn fill(self, weights: &mut Weights, prefix: &str) -> Result<Self> {
                Ok(match self { $(Self::$model(model) => model.fill(weights, prefix)?.into(),)* })
            }
        }

        impl<'de> Deserialize<'de> for $configs {
            fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                let fields = Value::deserialize(from)?;
                let found = fields["model_type"].as_str();
                let found = found.ok_or_else(|| D::Error::missing_field("model_type"))?;
                $(if $settings::MODEL_TYPES.contains(&found) {
                    let config = serde_json::from_value(fields).map_err(D::Error::custom)?;
                    return Ok(Self::$config(config));
                })*
                let known = [$($settings::MODEL_TYPES),*].concat().join(", ");
                let error = format!("unknown model_type `{found}`, expected one of {known}");
                Err(D::Error::custom(error))
            }
        }

        impl $configs {
            /// What the family says of itself.
            pub fn family(&self) -> &dyn Family {
                match self { $(Self::$config(config) => config,)* }
            }

            /// Freshly initialised weights.
            ///
            /// # Errors
            /// [`rag_core::Error::Config`].
            pub fn init(&self, device: &Device) -> Result<$models> {
                Ok(match self { $(Self::$config(config) => config.init(device)?.into(),)* })
            }
        }
    };
}

families! {
    /// A generator: P(y_i|x,z,y_<i).
    #[derive(Module, Debug)]
    #[allow(clippy::large_enum_variant)]
    Generator {
        /// Lewis et al. 2019 (arXiv 1910.13461).
        Bart(Bart),
        /// A decoder alone: Llama, Mistral, Qwen, Gemma.
        Causal(Causal),
        /// Raffel et al. 2020 (arXiv 1910.10683), v1.0 and v1.1.
        T5(T5),
    }

    /// `config.json` of a generator.
    #[derive(Clone, Debug, PartialEq, Serialize)]
    #[serde(untagged)]
    #[allow(clippy::large_enum_variant)]
    GeneratorConfig {
        /// `"model_type": "bart"`
        Bart(BartConfig),
        /// A decoder alone; its `model_type` is one of [`ModelType`].
        Causal(CausalConfig),
        /// `"model_type": "t5"`
        T5(T5Config),
    }
}

impl GeneratorConfig {
    /// Fills a generator from the tensors under `prefix`, such as `rag.generator.`
    ///
    /// # Errors
    /// Those of [`Weights::fill`].
    pub fn load(&self, weights: &mut Weights, prefix: &str, device: &Device) -> Result<Generator> {
        self.init(device)?.fill(weights, prefix)
    }

    /// See [`Family::vocabulary`].
    pub fn vocabulary(&self) -> usize {
        self.family().vocabulary()
    }

    /// See [`Family::pad`].
    pub fn pad(&self) -> u32 {
        self.family().pad()
    }

    /// See [`Family::generation`].
    pub fn generation(&self) -> GenerationConfig {
        self.family().generation()
    }
}

impl Generator {
    /// The same generator for answering in `precision`. On the CPU the weights of its linear layers are packed
    /// for bf16 or int8, and what is between the layers stays f32; elsewhere, and in f16, its matrices are stored
    /// in `precision`. Either halves the memory at least.
    ///
    /// # Errors
    /// [`rag_core::Error::Config`] for int8 on another device than the CPU.
    pub fn with_precision(self, precision: Precision) -> Result<Self> {
        let device = self.device();
        with_precision(self, &device, precision, |generator| {
            generator.pack(precision)
        })
    }

    /// Reads contexts `[contexts, length]`.
    pub fn encode(&self, contexts: &TokenBatch, precision: Precision) -> Memory {
        among_workers(&self.device(), || self.model().read(contexts, precision))
    }

    /// Logits `[rows, length, words]` of the tokens after each of `ids` `[rows, length]`, which
    /// follow what `cache` holds. The rows of a context are adjacent: row r reads context
    /// `r / (rows / contexts)`.
    pub fn decode(
        &self,
        ids: Tensor<2, Int>,
        memory: &Memory,
        cache: &mut Cache,
        precision: Precision,
    ) -> Tensor<3> {
        let places = Places::after(cache.length(), ids.dims()[1], &ids.device());
        let states = self.states(ids, &places, memory, Some(cache), precision);
        self.logits(states, precision)
    }

    /// See [`Model::states`].
    pub(crate) fn states(
        &self,
        ids: Tensor<2, Int>,
        places: &Places,
        memory: &Memory,
        cache: Option<&mut Cache>,
        precision: Precision,
    ) -> Tensor<3> {
        self.model().states(ids, places, memory, cache, precision)
    }

    /// See [`Head::logits`].
    pub(crate) fn logits(&self, states: Tensor<3>, precision: Precision) -> Tensor<3> {
        let (head, embeddings) = self.model().head();
        head.logits(embeddings, states, precision)
    }

    /// See [`Head::word_log_probs`].
    pub(crate) fn word_log_probs(
        &self,
        states: Tensor<3>,
        words: Tensor<3, Int>,
        precision: Precision,
    ) -> Tensor<3> {
        let (head, embeddings) = self.model().head();
        head.word_log_probs(embeddings, states, words, precision)
    }

    /// Adds the parameters to a checkpoint, under `prefix`.
    pub fn store(&self, tensors: &mut Tensors, prefix: &str) {
        self.model().store(tensors, prefix);
    }

    /// The same generator, which says no token but the first `words` of its vocabulary: those that its tokenizer knows.
    /// Checkpoints pad the vocabulary to a round number.
    #[must_use]
    pub fn with_words(mut self, words: usize) -> Self {
        self.model_mut().set_words(words);
        self
    }

    /// Tokens that can be said.
    pub fn words(&self) -> usize {
        self.model().head().0.words()
    }

    /// Tokens of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        let (_, embeddings) = self.model().head();
        embeddings.weight.lazy_shape().dims::<2>()[0]
    }

    /// The format that the matrices are stored in, or packed to.
    pub fn precision(&self) -> Precision {
        let (head, embeddings) = self.model().head();
        head.precision(embeddings)
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        let (_, embeddings) = self.model().head();
        embeddings.weight.lazy_device()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_configuration_is_read_by_the_model_type_that_it_is_written_with() {
        for fixture in fixtures::ALL {
            let config = (fixture.config)(fixtures::Tiny::default());
            let written = serde_json::to_value(&config).unwrap();
            let read: GeneratorConfig = serde_json::from_value(written).unwrap();
            assert_eq!(read, config, "{}", fixture.name);
        }
        for name in CausalConfig::MODEL_TYPES {
            let config = json!({"model_type": name});
            let config: GeneratorConfig = serde_json::from_value(config).unwrap();
            assert!(matches!(config, GeneratorConfig::Causal(_)), "{name}");
            assert_eq!(serde_json::to_value(config).unwrap()["model_type"], *name);
        }
    }

    #[test]
    fn an_unknown_model_type_is_refused_with_those_that_are_known() {
        let problem = |config| {
            let read = serde_json::from_value::<GeneratorConfig>(config);
            read.unwrap_err().to_string()
        };
        let unknown = problem(json!({"model_type": "gpt2"}));
        for name in ["gpt2", "bart", "llama", "qwen3", "t5"] {
            assert!(unknown.contains(name), "{unknown}");
        }
        let missing = problem(json!({"hidden_size": 8}));
        assert!(missing.contains("model_type"), "{missing}");
        let wrong = problem(json!({"model_type": "llama", "hidden_size": "wide"}));
        assert!(wrong.contains("wide"), "{wrong}");
    }
}
