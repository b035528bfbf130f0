use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::Tensor,
};
use rag_retrieve::{Encoder, Error, IndexError, TextEncoder};

use crate::{error::Result, run::precision::keeps_f32};

/// The encoders that are trained.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // There is one of these in a run.
pub enum Encoders {
    /// One encoder for questions and passages (all-MiniLM, BGE, E5).
    Shared(TextEncoder),
    /// One for each (DPR). They may begin as the same one.
    Two {
        /// Encodes questions.
        question: TextEncoder,
        /// Encodes passages.
        context: TextEncoder,
    },
}

/// The encoders as training moves them.
#[derive(Module, Debug)]
pub struct BiEncoder {
    /// Encodes questions.
    pub question: Encoder,
    /// Encodes passages; `None` where one encoder serves both sides.
    pub context: Option<Encoder>,
}

impl Encoders {
    /// The encoder of questions.
    pub fn question(&self) -> &TextEncoder {
        match self {
            Self::Shared(encoder) => encoder,
            Self::Two { question, .. } => question,
        }
    }

    /// The encoder of passages.
    pub fn context(&self) -> &TextEncoder {
        match self {
            Self::Shared(encoder) => encoder,
            Self::Two { context, .. } => context,
        }
    }

    /// The weights, ready to be trained.
    pub fn model(&self) -> BiEncoder {
        let context = match self {
            Self::Shared(_) => None,
            Self::Two { context, .. } => Some(context.encoder().clone().map(&mut NewIds)),
        };
        BiEncoder {
            question: self.question().encoder().clone(),
            context,
        }
        .train()
    }

    /// The same encoders with trained weights.
    pub(super) fn with(self, model: &BiEncoder) -> Self {
        let model = model.valid();
        match self {
            Self::Shared(encoder) => Self::Shared(encoder.with_encoder(model.question)),
            Self::Two { question, context } => Self::Two {
                context: context.with_encoder(model.context().clone()),
                question: question.with_encoder(model.question),
            },
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let [question, context] = [self.question(), self.context()];
        let [expected, found] = [question, context].map(|encoder| encoder.config().dimension());
        if expected != found {
            return Err(Error::Index(IndexError::Dimension {
                what: "passage vectors",
                expected: format!("the questions' {expected}"),
                found,
            })
            .into());
        }
        keeps_f32("question_encoder.precision", question.precision())?;
        keeps_f32("context_encoder.precision", context.precision())
    }
}

impl BiEncoder {
    /// Encodes passages.
    pub fn context(&self) -> &Encoder {
        self.context.as_ref().unwrap_or(&self.question)
    }
}

/// Encoders that begin as clones of one have the same ids for their parameters, by which gradients
/// and the optimiser's moments are kept.
struct NewIds;

impl ModuleMapper for NewIds {
    fn map_float<const D: usize>(&mut self, mut param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.id = ParamId::new();
        param
    }
}
