use burn::{
    config::Config,
    module::Module,
    tensor::{Device, FloatDType, Tensor},
};

use super::{
    attention::KeysValues,
    linear::{Linear, LinearConfig},
    operations::{soft_cap, softmax},
    precision::Precision,
    rms_norm::{RmsNorm, RmsNormConfig},
    rotary::Rotation,
};

/// Configuration of a [`GroupedAttention`].
#[derive(Config, Debug)]
pub struct GroupedAttentionConfig {
    /// Size of the states.
    pub d_model: usize,
    /// Heads of the queries: a multiple of `key_heads`.
    pub heads: usize,
    /// Heads of the keys and values.
    pub key_heads: usize,
    /// Size of a head.
    pub d_head: usize,
    /// Whether the projections of queries, keys and values have a bias.
    #[config(default = false)]
    pub bias: bool,
    /// Whether the projection of the heads' outputs has a bias.
    #[config(default = false)]
    pub output_bias: bool,
    /// The epsilon of the norms of each query and key before they are rotated (Qwen3, Gemma 3); `None` without norms.
    pub norm: Option<f64>,
    /// See [`RmsNormConfig::offset`].
    #[config(default = 0.0)]
    pub norm_offset: f64,
    /// The factor of the scores; `d_head^-½` where it is not set.
    pub scale: Option<f64>,
    /// The soft cap of the scores (Gemma 2).
    pub soft_cap: Option<f64>,
    /// Standard deviation of the initial weights.
    #[config(default = 0.02)]
    pub std: f64,
}

/// Self-attention of a decoder alone: rotated queries and keys, and several heads of queries for each head of keys and values
/// (Ainslie et al. 2023, arXiv 2305.13245). Query head h reads key head `h / (heads / key_heads)`.
#[derive(Module, Debug)]
pub struct GroupedAttention {
    /// Projection of the queries.
    pub query: Linear,
    /// Projection of the keys.
    pub key: Linear,
    /// Projection of the values.
    pub value: Linear,
    /// Projection of the heads' outputs.
    pub output: Linear,
    /// Norm of each query.
    pub query_norm: Option<RmsNorm>,
    /// Norm of each key.
    pub key_norm: Option<RmsNorm>,
    heads: usize,
    key_heads: usize,
    d_head: usize,
    scale: f64,
    #[module(skip)]
    soft_cap: Option<f64>,
}

/// Keys and values that tokens attend to, with the bias of their scores.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// `[contexts, key heads, length, d_head]`.
    pub memory: &'a KeysValues,
    /// Added to the scores, with [`MASKED`](super::MASKED) where nothing may be seen: `[contexts | 1, 1, queries | 1, length]`.
    pub bias: Option<&'a Tensor<4>>,
}

impl GroupedAttentionConfig {
    /// Freshly initialised projections.
    pub fn init(&self, device: &Device) -> GroupedAttention {
        let project = |d_input, d_output, bias| {
            LinearConfig::new(d_input, d_output)
                .with_bias(bias)
                .with_std(self.std)
                .init(device)
        };
        let norm = || {
            let config = RmsNormConfig::new(self.d_head).with_offset(self.norm_offset);
            (self.norm).map(|epsilon| config.with_epsilon(epsilon).init(device))
        };
        let inner = self.heads * self.d_head;
        let of_keys = self.key_heads * self.d_head;
        GroupedAttention {
            query: project(self.d_model, inner, self.bias),
            key: project(self.d_model, of_keys, self.bias),
            value: project(self.d_model, of_keys, self.bias),
            output: project(inner, self.d_model, self.output_bias),
            query_norm: norm(),
            key_norm: norm(),
            heads: self.heads,
            key_heads: self.key_heads,
            d_head: self.d_head,
            scale: self.scale.unwrap_or((self.d_head as f64).powf(-0.5)),
            soft_cap: self.soft_cap,
        }
    }
}

impl GroupedAttention {
    /// Rotated keys, and values, of `states` `[rows, length, d_model]`: each `[rows, key heads, length, d_head]`.
    pub fn keys_values(
        &self,
        states: Tensor<3>,
        rotation: &Rotation,
        precision: Precision,
    ) -> KeysValues {
        let [rows, length, _] = states.dims();
        let split = |states: Tensor<3>| states.reshape([rows, length, self.key_heads, self.d_head]);
        let keys = split(self.key.forward(states.clone(), precision));
        let values = split(self.value.forward(states, precision));
        // One head after the other in memory: they are read at every step of an answer.
        let by_head = |heads: Tensor<4>| {
            let shape = [rows * self.key_heads, length, self.d_head];
            let heads = heads.swap_dims(1, 2).reshape(shape);
            heads.reshape([rows, self.key_heads, length, self.d_head])
        };
        KeysValues {
            keys: by_head(rotation.apply(normed(&self.key_norm, keys))),
            values: by_head(values),
        }
    }

    /// Attends from `states` `[rows, length, d_model]` to the tokens of the same rows, and before them to `prompts`, in one
    /// softmax. Returns `[rows, length, d_model]` in f32.
    ///
    /// `own` has the rows of `states`, and a bias `[rows | 1, 1, length, own length]`. `prompts` may have fewer rows: those of
    /// one prompt are adjacent, and become further queries of it, as the query heads of a group do. Its keys and values are
    /// not copied. Its bias is `[prompts, 1, 1, prompt length]`.
    pub fn forward(
        &self,
        states: Tensor<3>,
        rotation: &Rotation,
        own: Seen<'_>,
        prompts: Option<Seen<'_>>,
        precision: Precision,
    ) -> Tensor<3> {
        let [rows, length, _] = states.dims();
        let group = self.heads / self.key_heads;
        let queries = self.query.forward(states.clone(), precision);
        let queries = queries.reshape([rows, length, self.heads, self.d_head]);
        let queries = rotation.apply(normed(&self.query_norm, queries));
        let queries = queries.reshape([rows, length, self.key_heads, group, self.d_head]);
        let heads = match prompts {
            None => self.attend(queries, own),
            Some(prompts) => self.attend_to_both(queries, own, prompts),
        };
        // [rows, key heads, group, length, d_head]
        let heads =
            heads
                .permute([0, 3, 1, 2, 4])
                .reshape([rows, length, self.heads * self.d_head]);
        self.output.forward(heads, precision).cast(FloatDType::F32)
    }

    /// From queries `[rows, length, key heads, group, d_head]` to `[rows, key heads, group, length, d_head]`.
    fn attend(&self, queries: Tensor<5>, own: Seen<'_>) -> Tensor<5> {
        let [rows, length, key_heads, group, d_head] = queries.dims();
        #[cfg(feature = "flex")]
        if self.soft_cap.is_none() {
            let shape = [rows, group * length, key_heads * d_head];
            let queries = queries.clone().permute([0, 3, 1, 2, 4]).reshape(shape);
            if let Some(heads) = rag_cpu::attention(rag_cpu::Attention {
                queries: &queries,
                keys: &own.memory.keys,
                values: &own.memory.values,
                bias: own.bias,
                scale: self.scale,
                dropout: 0.0,
                rounded: self.output.packed(&queries).is_some(),
            }) {
                let heads = heads.reshape([rows, group, length, key_heads, d_head]);
                return heads.permute([0, 3, 1, 2, 4]);
            }
        }
        let queries = queries.permute([0, 2, 3, 1, 4]);
        let queries = queries.reshape([rows, key_heads, group * length, d_head]) * self.scale;
        let scores = self.scores(queries, own);
        let heads =
            (softmax(scores).cast(own.memory.values.dtype())).matmul(own.memory.values.clone());
        heads.reshape([rows, key_heads, group, length, d_head])
    }

    /// The same, where the rows of a prompt see it too.
    fn attend_to_both(&self, queries: Tensor<5>, own: Seen<'_>, prompts: Seen<'_>) -> Tensor<5> {
        let [rows, length, key_heads, group, d_head] = queries.dims();
        let [count, _, prompt_length, _] = prompts.memory.keys.dims();
        let own_length = own.memory.keys.dims()[2];
        let each = rows / count;
        let queries = queries.permute([0, 2, 3, 1, 4]) * self.scale;
        let queries = queries.reshape([rows, key_heads, group * length, d_head]);
        let asked = by_prompt(queries.clone(), each);
        let of_prompt = self.scores(asked, prompts);
        let of_own = by_prompt(self.scores(queries, own), each);
        let weights = softmax(Tensor::cat(vec![of_prompt, of_own], 3));
        let weights = weights.cast(own.memory.values.dtype());
        let of_prompt =
            (weights.clone().narrow(3, 0, prompt_length)).matmul(prompts.memory.values.clone());
        let of_own = by_row(weights.narrow(3, prompt_length, own_length), each);
        let heads = by_row(of_prompt, each) + of_own.matmul(own.memory.values.clone());
        heads.reshape([rows, key_heads, group, length, d_head])
    }

    /// `[rows, heads, queries, length]` in f32, of scaled queries `[rows, heads, queries, d_head]`.
    fn scores(&self, queries: Tensor<4>, seen: Seen<'_>) -> Tensor<4> {
        let count = queries.dims()[2];
        let keys = seen.memory.keys.clone().swap_dims(2, 3);
        let scores = queries.matmul(keys).cast(FloatDType::F32);
        let scores = soft_cap(scores, self.soft_cap);
        match seen.bias {
            Some(bias) => scores + for_each_query(bias, count),
            None => scores,
        }
    }

    /// See [`Linear::pack`].
    #[must_use]
    pub fn pack(mut self, precision: Precision) -> Self {
        self.query = self.query.pack(precision);
        self.key = self.key.pack(precision);
        self.value = self.value.pack(precision);
        self.output = self.output.pack(precision);
        self
    }
}

/// A bias `[rows | 1, 1, period | 1, length]` for so many queries, of which those of each head of a group are a period.
fn for_each_query(bias: &Tensor<4>, count: usize) -> Tensor<4> {
    let [rows, heads, period, length] = bias.dims();
    if period == 1 || period == count {
        return bias.clone();
    }
    bias.clone()
        .unsqueeze_dim::<5>(2)
        .expand([rows, heads, count / period, period, length])
        .reshape([rows, heads, count, length])
}

/// Rows `[prompts · each, heads, queries, n]` as further queries of their prompt, `[prompts, heads, each · queries, n]`.
fn by_prompt(rows: Tensor<4>, each: usize) -> Tensor<4> {
    if each == 1 {
        return rows;
    }
    let [count, heads, queries, n] = rows.dims();
    rows.reshape([count / each, each, heads, queries, n])
        .swap_dims(1, 2)
        .reshape([count / each, heads, each * queries, n])
}

/// The inverse of [`by_prompt`].
fn by_row(prompts: Tensor<4>, each: usize) -> Tensor<4> {
    if each == 1 {
        return prompts;
    }
    let [count, heads, queries, n] = prompts.dims();
    prompts
        .reshape([count, heads, each, queries / each, n])
        .swap_dims(1, 2)
        .reshape([count * each, heads, queries / each, n])
}

fn normed(norm: &Option<RmsNorm>, heads: Tensor<4>) -> Tensor<4> {
    match norm {
        Some(norm) => {
            let dtype = heads.dtype();
            norm.forward(heads.cast(FloatDType::F32)).cast(dtype)
        }
        None => heads,
    }
}
