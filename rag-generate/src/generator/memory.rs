use burn::tensor::{Bool, Int, Tensor, TensorData};
use rag_core::{
    TokenBatch,
    nn::{Attention, KeysValues, Precision, Seen, padding_bias},
};

use super::places::Places;

/// Contexts as the decoder sees them: computed once for a question, shared by all beams and candidates.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Keys and values of each decoder layer, `[contexts, heads, length, d_head]`.
    layers: Vec<KeysValues>,
    /// Hides padding, `[contexts, 1, 1, length]`.
    bias: Tensor<4>,
    /// Of a decoder alone.
    ends: Option<Ends>,
}

/// Where prompts end. The last token of each is read again, in the place of an answer's start token: what follows it is the
/// answer's first token.
#[derive(Clone, Debug)]
struct Ends {
    /// The position of each prompt's last token.
    positions: Vec<usize>,
    /// The last tokens, `[contexts, 1]`.
    tokens: Tensor<2, Int>,
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
            ends: None,
        }
    }

    /// Keys and values of each layer of a decoder alone, which has read `prompts`.
    pub fn of_prompts(layers: Vec<KeysValues>, prompts: &TokenBatch) -> Self {
        let [contexts, length] = prompts.dims();
        let lengths = prompts.mask.clone().sum_dim(1).into_data();
        let positions = lengths
            .iter::<i64>()
            .map(|length| length.max(1) as usize - 1);
        let positions: Vec<usize> = positions.collect();
        let device = prompts.ids.device();
        let indices: Vec<i64> = positions.iter().map(|&position| position as i64).collect();
        let indices = Tensor::from_data(TensorData::new(indices, [contexts, 1]), &device);
        let before = |&end: &usize| (0..length).map(move |place| i64::from(place < end));
        let mask: Vec<i64> = positions.iter().flat_map(before).collect();
        let mask = Tensor::from_data(TensorData::new(mask, [contexts, length]), &device);
        Self {
            layers,
            bias: padding_bias(&mask),
            ends: Some(Ends {
                positions,
                tokens: prompts.ids.clone().gather(1, indices),
            }),
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
            ends: self.ends.as_ref().map(|ends| Ends {
                positions: ends.positions[first..first + count].to_vec(),
                tokens: ends.tokens.clone().narrow(0, first, count),
            }),
        }
    }

    /// The contexts `rows`, in that order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut kept = self.clone();
        let numbers: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let indices = TensorData::new(numbers, [rows.len()]);
        let indices = Tensor::from_data(indices, &self.bias.device());
        kept.layers
            .iter_mut()
            .for_each(|layer| layer.select(&indices));
        kept.bias = kept.bias.select(0, indices.clone());
        kept.ends = kept.ends.map(|ends| Ends {
            positions: rows.iter().map(|&row| ends.positions[row]).collect(),
            tokens: ends.tokens.select(0, indices),
        });
        kept
    }

    /// Keys and values of the prompts in layer `layer` of a decoder alone, but for their last tokens.
    pub fn layer(&self, layer: usize) -> Seen<'_> {
        Seen {
            memory: &self.layers[layer],
            bias: Some(&self.bias),
        }
    }

    /// Tokens `[rows, length]` of answers as a decoder alone reads them: positions go on where each row's prompt ends, and
    /// its last token stands in the place of the start token.
    ///
    /// # Panics
    /// If the memory is not of prompts.
    pub fn continued(&self, ids: Tensor<2, Int>, places: &Places) -> (Tensor<2, Int>, Places) {
        let Some(ends) = &self.ends else {
            panic!("a decoder alone continues prompts: make its memory with Memory::of_prompts");
        };
        let [rows, length] = ids.dims();
        let contexts = ends.positions.len();
        let each = rows / contexts;
        let starts: Vec<usize> = (ends.positions.iter())
            .flat_map(|&position| std::iter::repeat_n(position, each))
            .collect();
        let is_start: Vec<bool> = places.read.row(0).iter().map(|&depth| depth == 0).collect();
        let ids = match is_start.contains(&true) {
            true => {
                let device = ids.device();
                let is_start =
                    Tensor::<2, Bool>::from_data(TensorData::new(is_start, [1, length]), &device);
                let last = ends.tokens.clone().expand([contexts, each * length]);
                ids.mask_where(
                    is_start.expand([rows, length]),
                    last.reshape([rows, length]),
                )
            }
            false => ids,
        };
        (ids, places.clone().starting_at(&starts))
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
