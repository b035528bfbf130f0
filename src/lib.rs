#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod error;

pub use burn;
pub use rag_core::{self as core, cpu};
pub use rag_generate as generate;
pub use rag_retrieve as retrieve;
pub use rag_train as train;

pub use error::{Error, Result};

/// The types and functions that most programs need.
pub mod prelude {
    pub use rag_core::{Device, Passage, Tokenizer, device, marginal::RagModel, nn::Precision};
    pub use rag_generate::{
        Answer, Calibration, Evidence, LanguageModel, Outcome, Rag, RankBy, SequenceDecoding,
        Threshold,
        decode::{Control, GenerationConfig},
    };
    pub use rag_retrieve::{
        Chunking, CrossEncoder, Documents, Embedder, Filter, Fingerprint, KnowledgeBase,
        KnowledgeWriter, LexicalIndex, PriorWeights, Retrieved, Retriever, Storage, TextEncoder,
        build_knowledge_base,
    };
    pub use rag_train::{
        Measured, Part, QuestionAnswer, ScratchConfig, TrainConfig, Trainer, evaluate, fit_prior,
        read_pairs,
    };
}

/// Language models, compiled with the other documentation.
#[cfg(doctest)]
#[doc = include_str!("../docs/models.md")]
struct Models;

/// Use from async code, compiled with the other documentation.
#[cfg(doctest)]
#[doc = include_str!("../docs/async.md")]
struct Async;

// A server shares these among its threads; a trainer is moved to the thread that trains.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    const fn moved<T: Send>() {}
    shared::<prelude::Rag>();
    shared::<prelude::Retriever>();
    shared::<prelude::KnowledgeBase>();
    shared::<prelude::LexicalIndex>();
    shared::<Error>();
    moved::<prelude::Trainer>();
};
