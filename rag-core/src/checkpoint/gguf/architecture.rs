//! The model architectures that this library reads.

use super::{error::GgufError, metadata::Metadata};

type Result<T> = std::result::Result<T, GgufError>;

/// A model architecture whose layout is known, by its name in `general.architecture`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// `llama`: Llama, SmolLM2, Mistral 7B and other models of the same layout.
    Llama,
    /// `mistral3`: Mistral Small 3.1 and later, Ministral 3.
    Mistral3,
    /// `smollm3`: SmolLM3.
    SmolLm3,
    /// `granite`: Granite 3, dense.
    Granite,
    /// `qwen2`: Qwen2 and Qwen2.5, dense.
    Qwen2,
    /// `qwen3`: Qwen3, dense.
    Qwen3,
    /// `gemma2`: Gemma 2.
    Gemma2,
    /// `gemma3`: Gemma 3, text.
    Gemma3,
}

impl Architecture {
    const ALL: [Self; 8] = [
        Self::Llama,
        Self::Mistral3,
        Self::SmolLm3,
        Self::Granite,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma2,
        Self::Gemma3,
    ];

    /// The architecture that `general.architecture` names.
    pub(super) fn of(metadata: Metadata<'_>) -> Result<Self> {
        let key = "general.architecture";
        let found = (metadata.text(key)?)
            .ok_or_else(|| GgufError::metadata(key, "the name of an architecture", "nothing"))?;
        let known = Self::ALL.into_iter().find(|own| own.name() == found);
        known.ok_or_else(|| GgufError::Architecture {
            found: found.chars().take(80).collect(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// llama.cpp's name, with which the metadata keys begin.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral3 => "mistral3",
            Self::SmolLm3 => "smollm3",
            Self::Granite => "granite",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
        }
    }

    /// Whether the converter interleaves the rows of the query and key projections. llama.cpp then rotates pairs of
    /// neighbours; in the other architectures it rotates halves, as transformers does.
    pub fn interleaves_heads(self) -> bool {
        match self {
            Self::Llama | Self::Mistral3 | Self::SmolLm3 | Self::Granite => true,
            Self::Qwen2 | Self::Qwen3 | Self::Gemma2 | Self::Gemma3 => false,
        }
    }

    /// Whether it is a Gemma, whose norms and activation differ from the others'.
    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }
}
