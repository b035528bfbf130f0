use burn::{module::Module, tensor::Device};
use rag_core::parameters::for_each_parameter;
use rag_generate::{
    RagConfig,
    generator::{Dropouts, StackSizes},
};
use rag_retrieve::encoder::BertConfig;

use crate::error::Result;

/// The sizes of a model that the formulas of memory need.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    /// Whether the device makes one pass of each thing between matrix products.
    pub(super) fused: bool,
    /// Question encoder and passages' encoder.
    pub(super) bert: Stack,
    /// `None` for a decoder alone, which reads contexts as prompts.
    pub(super) encoder: Option<Stack>,
    pub(super) decoder: Stack,
    pub(super) vocabulary: u64,
    /// Whether the logits have a soft cap.
    pub(super) capped_logits: bool,
    /// Size of the question and passage vectors.
    pub(super) dimension: u64,
    /// Longest context in tokens, where the generator has one; with the answer, where its decoder is alone.
    longest: Option<usize>,
    /// Of the question encoder, and of the passages' encoder.
    pub(super) retriever: Count,
    pub(super) generator: Count,
    /// The part of the generator between its encoder and the loss; of a decoder alone what is after the last layer
    /// that prompts go through whole.
    pub(super) answering: Count,
    /// The part by which a decoder alone reads prompts, none of an encoder-decoder: answers read it as well.
    pub(super) prompting: Count,
}

/// Layers of one kind, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stack {
    pub(super) layers: u64,
    pub(super) d_model: u64,
    pub(super) heads: u64,
    /// Size of all heads together.
    pub(super) inner: u64,
    /// Size of all heads of keys together, and of values.
    pub(super) key_inner: u64,
    /// Whether queries and keys have norms by head.
    pub(super) head_norms: bool,
    /// Size of the feed-forward's hidden layer.
    pub(super) hidden: u64,
    /// Projections that read the states into the hidden layer: 2 where it is gated.
    pub(super) ups: u64,
    /// `[tokens, hidden]` tensors that activation and gate keep.
    pub(super) hidden_kept: u64,
    /// Whether there is a dropout of the states, of the attention weights, of the hidden layer.
    pub(super) dropout: Dropouts,
    /// Whether a trained bias of relative positions is added to the scores.
    pub(super) relative: bool,
    /// Whether the norms are layer norms, with a mean.
    pub(super) layer_norm: bool,
    /// Whether the norms stand before what they are for.
    pub(super) normalize_before: bool,
    /// Norms of a layer that attends once: 4 where what each block adds has one too.
    pub(super) layer_norms: u64,
    /// Whether the scores have a soft cap.
    pub(super) capped_scores: bool,
    /// Embeddings of all tokens that are added up.
    pub(super) embeddings: u64,
    /// Norms of all states outside the layers.
    pub(super) outer_norms: u64,
    /// Dropouts of all states outside the layers.
    pub(super) outer_dropouts: u64,
}

/// Numbers in the parameters of a module.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Count {
    pub(super) all: u64,
    /// Of which have a gradient.
    pub(super) trained: u64,
    /// Of which are operands of a matrix product.
    pub(super) multiplied: u64,
    /// In Adafactor's moments.
    pub(super) factored: u64,
    /// In the largest parameter.
    pub(super) largest: u64,
}

/// BART keeps its biases of the logits, all zero, without training them.
const UNTRAINED: &str = "final_logits_bias";

impl Shape {
    /// Of the modules that `config` describes, none of whose parameters is initialised.
    pub(super) fn of(config: &RagConfig, device: &Device) -> Result<Self> {
        let retriever = parameters(&config.question_encoder.init(device)?);
        let generator = parameters(&config.generator.init(device)?);
        let family = config.generator.family();
        let sizes = family.sizes();
        let is_head = |parameter: &Parameter| {
            parameter.is_within("lm_head") || sizes.tied_head && parameter.is_within("shared")
        };
        let count = |chosen: &dyn Fn(&Parameter) -> bool| {
            let chosen = generator.iter().filter(|parameter| chosen(parameter));
            Count::of(chosen, is_head)
        };
        let alone = sizes.encoder.is_none();
        let last = sizes.decoder.layers.saturating_sub(1);
        let answers = |parameter: &Parameter| match parameter.layer() {
            Some(layer) if alone => layer == last,
            _ => parameter.is_within("decoder"),
        };
        let prompts = |parameter: &Parameter| match parameter.layer() {
            // Of a prompt the last layer makes keys and values.
            Some(layer) if layer == last => {
                parameter.is_within("key") || parameter.is_within("value")
            }
            layer => layer.is_some(),
        };
        Ok(Self {
            fused: rag_core::nn::fuses(device),
            bert: Stack::bert(&config.question_encoder.bert),
            encoder: sizes.encoder.as_ref().map(Stack::of),
            decoder: Stack::of(&sizes.decoder),
            vocabulary: family.vocabulary() as u64,
            capped_logits: sizes.capped_logits,
            dimension: config.question_encoder.dimension() as u64,
            longest: family.longest_context(),
            retriever: Count::of(&retriever, |_| false),
            generator: count(&|_| true),
            answering: count(&|parameter| answers(parameter) || is_head(parameter)),
            prompting: count(&|parameter| alone && prompts(parameter)),
        })
    }

    /// Tokens of the longest context beside an answer of so many tokens.
    pub(super) fn longest_context(&self, answer: usize) -> Option<usize> {
        // The last token of an answer is not read.
        let beside = match self.encoder {
            Some(_) => 0,
            None => answer.saturating_sub(1),
        };
        (self.longest).map(|longest| longest.saturating_sub(beside).max(1))
    }

    /// Norms that contexts go through in the generator.
    pub(super) fn context_norms(&self) -> u64 {
        match &self.encoder {
            Some(encoder) => 2 * encoder.layers + encoder.outer_norms,
            None => {
                let norms = self.decoder.layer_norms;
                (norms * self.decoder.layers + 1).saturating_sub(norms)
            }
        }
    }

    /// Norms that answers go through.
    pub(super) fn answer_norms(&self) -> u64 {
        let across = u64::from(self.encoder.is_some());
        (self.decoder.layer_norms + across) * self.decoder.layers + self.decoder.outer_norms
    }
}

impl Stack {
    fn bert(config: &BertConfig) -> Self {
        let states = config.hidden_dropout_prob > 0.0;
        Self {
            layers: config.num_hidden_layers as u64,
            d_model: config.hidden_size as u64,
            heads: config.num_attention_heads as u64,
            inner: config.hidden_size as u64,
            key_inner: config.hidden_size as u64,
            head_norms: false,
            hidden: config.intermediate_size as u64,
            ups: 1,
            hidden_kept: kept(&config.hidden_act),
            dropout: Dropouts {
                states,
                attention: config.attention_probs_dropout_prob > 0.0,
                hidden: false,
            },
            relative: false,
            layer_norm: true,
            normalize_before: false,
            layer_norms: 2,
            capped_scores: false,
            embeddings: 2,
            outer_norms: 1,
            outer_dropouts: states.into(),
        }
    }

    fn of(sizes: &StackSizes<'_>) -> Self {
        let gated = u64::from(sizes.gated);
        Self {
            layers: sizes.layers as u64,
            d_model: sizes.d_model as u64,
            heads: sizes.heads as u64,
            inner: sizes.inner as u64,
            key_inner: sizes.key_inner as u64,
            head_norms: sizes.head_norms,
            hidden: sizes.hidden as u64,
            ups: 1 + gated,
            hidden_kept: kept(sizes.activation) + 2 * gated,
            dropout: sizes.dropout,
            relative: sizes.relative_positions,
            layer_norm: sizes.layer_norm,
            normalize_before: sizes.normalize_before,
            layer_norms: if sizes.norms_added { 4 } else { 2 },
            capped_scores: sizes.capped_scores,
            embeddings: sizes.embeddings as u64,
            outer_norms: sizes.outer_norms as u64,
            outer_dropouts: sizes.outer_dropouts as u64,
        }
    }
}

/// `[tokens, hidden]` tensors that an activation keeps for its gradient: its input; the approximate
/// GELU is made of a cube, a tanh and a product, which keep their inputs, and SiLU multiplies its input by a sigmoid.
fn kept(activation: &str) -> u64 {
    match activation {
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => 3,
        "silu" | "swish" => 2,
        _ => 1,
    }
}

struct Parameter {
    path: Vec<String>,
    /// `Struct:Linear` and the like.
    owner: String,
    shape: Vec<usize>,
}

impl Parameter {
    fn is_within(&self, name: &str) -> bool {
        self.path.iter().any(|part| part == name)
    }

    /// The number of its layer.
    fn layer(&self) -> Option<usize> {
        let mut path = self.path.iter();
        path.find(|part| *part == "layers")?;
        path.next()?.parse().ok()
    }
}

impl Count {
    fn of<'a>(
        parameters: impl IntoIterator<Item = &'a Parameter>,
        is_head: impl Fn(&Parameter) -> bool,
    ) -> Self {
        let mut count = Self::default();
        for parameter in parameters {
            let numbers = parameter.shape.iter().product::<usize>() as u64;
            count.all += numbers;
            if parameter.is_within(UNTRAINED) {
                continue;
            }
            count.trained += numbers;
            count.largest = count.largest.max(numbers);
            count.factored += match parameter.shape[..] {
                [rows, columns] => (rows + columns) as u64,
                _ => numbers,
            };
            let is_matrix = parameter.owner == "Struct:Linear" && parameter.shape.len() == 2;
            if is_matrix || is_head(parameter) {
                count.multiplied += numbers;
            }
        }
        count
    }
}

fn parameters(module: &impl Module) -> Vec<Parameter> {
    let mut found = Vec::new();
    for_each_parameter(module, |parameter| {
        found.push(Parameter {
            path: parameter.names().map(str::to_owned).collect(),
            owner: parameter.owner().to_owned(),
            shape: parameter.shape().to_vec(),
        });
    });
    found
}
