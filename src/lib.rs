#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub use burn;
pub use rag_core::{self as core, cpu};
pub use rag_generate as generate;
pub use rag_retrieve as retrieve;
pub use rag_train as train;

/// What most programs need.
pub mod prelude {
    pub use rag_core::{Device, Passage, Tokenizer, device, marginal::RagModel, nn::Precision};
    pub use rag_generate::{
        Answer, Evidence, Outcome, Rag, RankBy, SequenceDecoding, Threshold,
        decode::{Control, GenerationConfig},
    };
    pub use rag_retrieve::{
        Chunking, Documents, Embedder, Filter, KnowledgeBase, KnowledgeWriter, Retriever, Storage,
        TextEncoder, build_knowledge_base,
    };
    pub use rag_train::{
        Measured, Part, QuestionAnswer, ScratchConfig, TrainConfig, Trainer, evaluate, read_pairs,
    };
}
