use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Adapters of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// r: the factors are A `[r, d_input]` and B `[d_output, r]`.
    pub rank: usize,
    /// α, in the factor of their product.
    pub alpha: f64,
    /// How that factor depends on r.
    pub scaling: Scaling,
    /// Ends of the checkpoint's names of the projections, such as `q_proj`, `encoder_attn.v_proj`,
    /// `SelfAttention.q` or `mlp.gate_proj`. `None` takes the queries and values of all attentions, as the paper
    /// and PEFT: `q_proj` and `v_proj` in BART, Llama, Mistral, Qwen and Gemma, `q` and `v` in T5, `query` and `value` in BERT.
    pub target_modules: Option<Vec<String>>,
    /// Name or folder of the base model, for PEFT's `adapter_config.json`.
    pub base_model: Option<String>,
    /// Seed of A.
    pub seed: u64,
}

/// The factor of B A.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// α / r, as the paper.
    #[default]
    Rank,
    /// α / √r, which stays stable as r grows (Kalajdzievski 2023, arXiv 2312.03732).
    RootOfRank,
}

impl Default for LoraConfig {
    /// PEFT's.
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            scaling: Scaling::Rank,
            target_modules: None,
            base_model: None,
            seed: 0,
        }
    }
}

impl LoraConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::setting("rank", 0, "at least 1"));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(Error::setting("alpha", self.alpha, "a number above 0"));
        }
        if self.target_modules.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::setting("target_modules", "[]", "at least one name"));
        }
        Ok(())
    }

    pub(super) fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        match self.scaling {
            Scaling::Rank => self.alpha / rank,
            Scaling::RootOfRank => self.alpha / rank.sqrt(),
        }
    }
}
