use std::sync::Arc;

use burn::{
    module::{Initializer, Module, Param},
    nn::Embedding,
    tensor::{Device, FloatDType, Int, Tensor},
};
use rag_core::nn::{
    Linear, LinearConfig, Packed, Precision, flat_linear, log_softmax, soft_cap, store_weights_as,
    word_log_probs,
};

/// Configuration of a [`Head`].
#[derive(Clone, Copy, Debug)]
pub struct HeadConfig {
    /// Size of the states.
    pub d_model: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Whether the head multiplies the word embeddings, instead of weights of its own.
    pub tied: bool,
    /// Standard deviation of its own initial weights.
    pub std: f64,
    /// The factor of the states before a tied head: 1, or 1/√d_model in T5.
    pub tied_scale: f64,
    /// The soft cap of the logits (Gemma 2).
    pub soft_cap: Option<f64>,
    /// Whether a constant is added to the logits, which does not train (BART's `final_logits_bias`).
    pub constant: bool,
}

/// States to the logits of all tokens, by the word embeddings (tied) or by weights of its own.
#[derive(Module, Debug)]
pub struct Head {
    lm_head: Option<Linear>,
    /// `[1, vocabulary]`
    final_logits_bias: Option<Param<Tensor<2>>>,
    /// Multiplied instead of the word embeddings, where gradients are not asked for.
    #[module(skip)]
    packed: Option<Arc<Packed>>,
    tied_scale: f64,
    #[module(skip)]
    soft_cap: Option<f64>,
    words: usize,
}

/// Rows whose logits are in memory at once where log-probabilities are asked for.
const ROWS: usize = 256;

impl HeadConfig {
    /// Freshly initialised weights.
    pub fn init(&self, device: &Device) -> Head {
        let own = || {
            LinearConfig::new(self.d_model, self.vocabulary)
                .with_bias(false)
                .with_std(self.std)
                .init(device)
        };
        let constant = || {
            let zeros: Param<Tensor<2>> = Initializer::Zeros.init([1, self.vocabulary], device);
            zeros.set_require_grad(false)
        };
        Head {
            lm_head: (!self.tied).then(own),
            final_logits_bias: self.constant.then(constant),
            packed: None,
            tied_scale: self.tied_scale,
            soft_cap: self.soft_cap,
            words: self.vocabulary,
        }
    }
}

impl Head {
    /// Tokens that can be said: the first rows of the vocabulary. Further rows pad it to a round number.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Lets the first `words` tokens of the vocabulary be said, and no others.
    pub fn set_words(&mut self, words: usize) {
        self.words = words.min(self.words);
    }

    /// Logits `[rows, length, words]` of `states` `[rows, length, d_model]`, in f32.
    pub fn logits(
        &self,
        embeddings: &Embedding,
        states: Tensor<3>,
        precision: Precision,
    ) -> Tensor<3> {
        let logits = match &self.lm_head {
            Some(own) => own.forward(states, precision),
            None => self.tied(embeddings, self.scaled(states), precision),
        };
        let logits = logits.cast(FloatDType::F32);
        let logits = match &self.final_logits_bias {
            Some(bias) => logits + bias.val().cast(FloatDType::F32).unsqueeze_dim::<3>(0),
            None => logits,
        };
        let logits = soft_cap(logits, self.soft_cap);
        match logits.dims() {
            [.., vocabulary] if vocabulary > self.words => logits.narrow(2, 0, self.words),
            _ => logits,
        }
    }

    /// The log-probabilities of `words` `[rows, length, asked]` after each of `states` `[rows, length, d_model]`, without
    /// the logits of all tokens in memory where the device can do so.
    pub fn word_log_probs(
        &self,
        embeddings: &Embedding,
        states: Tensor<3>,
        words: Tensor<3, Int>,
        precision: Precision,
    ) -> Tensor<3> {
        let [rows, length, asked] = words.dims();
        if precision == Precision::F32
            && self.soft_cap.is_none()
            && let Some(weight) = self.unpacked_weight(embeddings)
        {
            let [.., d_model] = states.dims();
            let states = match self.lm_head {
                Some(_) => states.clone(),
                None => self.scaled(states.clone()),
            };
            let states = states.reshape([rows * length, d_model]);
            let words = words.clone().reshape([rows * length, asked]);
            let bias = self.final_logits_bias.as_ref();
            let bias: Option<Tensor<1>> = bias.map(|bias| bias.val().squeeze_dim(0));
            let (weight, bias) = match weight.dims() {
                [vocabulary, _] if vocabulary > self.words => (
                    weight.narrow(0, 0, self.words),
                    bias.map(|bias| bias.narrow(0, 0, self.words)),
                ),
                _ => (weight, bias),
            };
            if let Some(found) = word_log_probs(&states, &weight, bias.as_ref(), &words) {
                return found.reshape([rows, length, asked]);
            }
        }
        // Where there are gradients, the logits of every piece would be kept anyway.
        let at_once = match states.device().is_autodiff() {
            true => length,
            false => (ROWS / rows).max(1),
        };
        let found = (0..length).step_by(at_once).map(|first| {
            let count = at_once.min(length - first);
            let states = states.clone().narrow(1, first, count);
            let logits = self.logits(embeddings, states, precision);
            log_softmax(logits).gather(2, words.clone().narrow(1, first, count))
        });
        Tensor::cat(found.collect(), 1)
    }

    /// Packs the head for answering on the CPU. Word embeddings that it is tied to are left in bf16: few of them are read
    /// at a time.
    #[must_use]
    pub fn pack(mut self, embeddings: Embedding, precision: Precision) -> (Embedding, Self) {
        if let Some(own) = self.lm_head {
            self.lm_head = Some(own.pack(precision));
            return (embeddings, self);
        }
        self.packed = Packed::new(&embeddings.weight.val(), precision).map(Arc::new);
        let embeddings = store_weights_as(embeddings, Precision::Bf16);
        if let Some(packed) = &self.packed {
            packed.stands_for(&embeddings.weight.val());
        }
        (embeddings, self)
    }

    /// The format of the weights that make the logits: packed, or as they are stored.
    pub fn precision(&self, embeddings: &Embedding) -> Precision {
        match (&self.lm_head, &self.packed) {
            (Some(own), _) => own.precision(),
            (None, Some(packed)) => packed.precision(),
            (None, None) => Precision::of(&embeddings.weight.val()),
        }
    }

    fn tied(&self, embeddings: &Embedding, states: Tensor<3>, precision: Precision) -> Tensor<3> {
        match &self.packed {
            Some(packed) if packed.serves(&states, &embeddings.weight) => {
                packed.linear(states, None)
            }
            _ => flat_linear(states, embeddings.weight.val(), None, precision),
        }
    }

    fn scaled(&self, states: Tensor<3>) -> Tensor<3> {
        if self.tied_scale == 1.0 {
            states
        } else {
            states * self.tied_scale
        }
    }

    /// `[vocabulary, d_model]`, where nothing is multiplied instead.
    fn unpacked_weight(&self, embeddings: &Embedding) -> Option<Tensor<2>> {
        match &self.lm_head {
            Some(own) => own.unpacked_weight(),
            None => self.packed.is_none().then(|| embeddings.weight.val()),
        }
    }
}
