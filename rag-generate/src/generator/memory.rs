use burn::tensor::{Int, Tensor};
use rag_core::nn::{Attention, KeysValues, Precision, padding_bias};

/// Contexts as the decoder sees them: computed once for a question, shared by all beams and candidates.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Keys and values of each decoder layer, `[contexts, heads, length, d_head]`.
    layers: Vec<KeysValues>,
    /// Hides padding, `[contexts, 1, 1, length]`.
    bias: Tensor<4>,
}

/// Self-attention keys and values of the tokens decoded so far, `[rows, heads, length, d_head]` of each layer.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    layers: Vec<KeysValues>,
}

impl Memory {
    /// Keys and values of each layer, with the contexts' mask `[contexts, length]`, which is 1 where there is a token.
    pub fn new(layers: Vec<KeysValues>, mask: &Tensor<2, Int>) -> Self {
        Self {
            layers,
            bias: padding_bias(mask),
        }
    }

    /// Number of contexts.
    pub fn contexts(&self) -> usize {
        self.bias.dims()[0]
    }

    /// Tokens of the longest context.
    pub fn length(&self) -> usize {
        self.bias.dims()[3]
    }

    /// `count` contexts from `first` on, without a copy.
    #[must_use]
    pub fn narrow(&self, first: usize, count: usize) -> Self {
        let of = |tensor: &Tensor<4>| tensor.clone().narrow(0, first, count);
        let layers = self.layers.iter().map(|layer| KeysValues {
            keys: of(&layer.keys),
            values: of(&layer.values),
        });
        Self {
            layers: layers.collect(),
            bias: of(&self.bias),
        }
    }

    /// The contexts `rows`, in that order.
    #[must_use]
    pub fn select(&self, rows: &Tensor<1, Int>) -> Self {
        let mut kept = self.clone();
        kept.layers.iter_mut().for_each(|layer| layer.select(rows));
        kept.bias = kept.bias.select(0, rows.clone());
        kept
    }

    /// Cross-attention of decoder layer `layer`: from `states` `[rows, length, d_model]` to the rows' contexts.
    ///
    /// The rows of one context become further queries of it, so that its keys and values need no copies.
    pub fn attend(
        &self,
        attention: &Attention,
        layer: usize,
        states: Tensor<3>,
        precision: Precision,
    ) -> Tensor<3> {
        let [rows, length, d_model] = states.dims();
        let contexts = self.contexts();
        let queries = states.reshape([contexts, rows / contexts * length, d_model]);
        let bias = Some(self.bias.clone());
        let attended = attention.forward(queries, &self.layers[layer], bias, precision);
        attended.reshape([rows, length, d_model])
    }
}

impl Cache {
    /// Tokens decoded so far.
    pub fn length(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.keys.dims()[2])
    }

    /// Row i continues the former row `rows[i]`.
    pub fn select(&mut self, rows: &Tensor<1, Int>) {
        self.layers.iter_mut().for_each(|layer| layer.select(rows));
    }

    /// Appends `next` to the keys and values of `layer`, and returns those of all tokens so far.
    pub fn extend(&mut self, layer: usize, next: KeysValues) -> &KeysValues {
        match self.layers.get_mut(layer) {
            Some(known) => known.append(next),
            None => self.layers.push(next),
        }
        &self.layers[layer]
    }
}
