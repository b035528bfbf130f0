/// Layers and widths of a generator, for a plan of the memory that training takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes<'a> {
    /// The stack that reads contexts; `None` for a decoder alone, which reads them as it reads answers.
    pub encoder: Option<StackSizes<'a>>,
    /// The stack that reads answers, and looks at what the encoder, or it itself, made of the contexts.
    pub decoder: StackSizes<'a>,
    /// Whether the head multiplies the word embeddings.
    pub tied_head: bool,
    /// Whether the logits have a soft cap (Gemma 2).
    pub capped_logits: bool,
}

/// Layers of one kind, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StackSizes<'a> {
    /// Number of layers.
    pub layers: usize,
    /// Size of the states.
    pub d_model: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Size of all heads together.
    pub inner: usize,
    /// Size of all heads of keys together, and of values: `inner` but where several heads of queries share one of keys.
    pub key_inner: usize,
    /// Whether queries and keys have norms by head.
    pub head_norms: bool,
    /// Size of the feed-forward block's hidden layer.
    pub hidden: usize,
    /// Name of the hidden layer's activation.
    pub activation: &'a str,
    /// Whether a second projection gates the hidden layer.
    pub gated: bool,
    /// Where dropout is above 0.
    pub dropout: Dropouts,
    /// Whether a trained bias of relative positions is added to the scores.
    pub relative_positions: bool,
    /// Whether the norms subtract the mean (layer norm) or not (RMS norm).
    pub layer_norm: bool,
    /// Whether the norms stand before the blocks, or after them.
    pub normalize_before: bool,
    /// Whether what each block adds has a norm too (Gemma).
    pub norms_added: bool,
    /// Whether the scores have a soft cap (Gemma 2).
    pub capped_scores: bool,
    /// Tensors of all states that the sum of embeddings before the first layer keeps where activations are recomputed.
    pub embeddings: usize,
    /// Norms of all states outside the layers.
    pub outer_norms: usize,
    /// Dropouts of all states outside the layers.
    pub outer_dropouts: usize,
}

/// Whether there is dropout of the states, of the attention's weights, of the hidden layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropouts {
    /// Of what a block adds to the states.
    pub states: bool,
    /// Of the attention's weights.
    pub attention: bool,
    /// Of the feed-forward block's hidden layer.
    pub hidden: bool,
}
