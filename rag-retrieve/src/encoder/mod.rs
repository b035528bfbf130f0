//! Text to vectors: BERT, how its states are pooled, and the encoders of questions and passages.

mod batches;
mod bert;
mod embedder;
pub(crate) mod error;
mod role;
mod text_encoder;

pub(crate) use batches::by_length;
pub(crate) use bert::tokenizer_settings;
pub use bert::{Bert, BertConfig};
pub use embedder::Embedder;
pub use error::EncoderError;
pub use role::Role;
pub use text_encoder::{Encoder, EncoderConfig, Normalization, Pooling, TextEncoder, load_encoder};
