//! The folder of a whole [`Rag`]: its checkpoint, its tokenizers and the encoder of passages. A decoder alone is a part of
//! its own in it, as the encoders are: see [`super::parts`].

use std::path::Path;

use burn::tensor::Device;
use rag_core::{Tokenizer, atomic::replace_folder};
use rag_retrieve::{Knowledge, Role, TextEncoder};
use serde_json::{Value, json};

use super::{
    Checkpoint,
    parts::{self, CONTEXT_ENCODER},
};
use crate::{error::Result, rag::Rag};

/// The folders of a checkpoint's parts.
const QUESTION_TOKENIZER: &str = "question_encoder_tokenizer";
const GENERATOR_TOKENIZER: &str = "generator_tokenizer";

impl Rag {
    /// Reads a folder such as `facebook/rag-token-nq`, with its nested tokenizers, to answer from
    /// `knowledge`. The encoder of passages is read from `context_encoder/` in it.
    ///
    /// # Errors
    /// Those of [`Checkpoint::load`], [`Tokenizer::from_folder`], [`TextEncoder::load`] and
    /// [`Rag::new`].
    pub fn load(
        folder: impl AsRef<Path>,
        knowledge: impl Knowledge + 'static,
        device: &Device,
    ) -> Result<Self> {
        let context_encoder = Self::load_context_encoder(folder.as_ref(), device)?;
        Self::load_with(folder, context_encoder, knowledge, device)
    }

    /// Like [`Rag::load`], for a folder without the encoder of passages, as the published ones are:
    /// `facebook/rag-token-nq` goes with `facebook/dpr-ctx_encoder-multiset-base`.
    ///
    /// # Errors
    /// Those of [`Rag::load`].
    pub fn load_with(
        folder: impl AsRef<Path>,
        context_encoder: TextEncoder,
        knowledge: impl Knowledge + 'static,
        device: &Device,
    ) -> Result<Self> {
        let folder = folder.as_ref();
        if parts::is_in(folder) {
            return parts::load(folder, context_encoder, knowledge, device);
        }
        Self::new(
            Checkpoint::load(folder, device)?,
            Tokenizer::from_folder(folder.join(QUESTION_TOKENIZER))?,
            Tokenizer::from_folder(folder.join(GENERATOR_TOKENIZER))?,
            context_encoder,
            knowledge,
        )
    }

    /// Reads the encoder of passages of a checkpoint folder, to build a knowledge base with.
    ///
    /// # Errors
    /// Those of [`TextEncoder::load`]. The tokenizer is the question encoder's where
    /// `context_encoder/` has none.
    pub fn load_context_encoder(folder: impl AsRef<Path>, device: &Device) -> Result<TextEncoder> {
        let folder = folder.as_ref();
        let encoder = folder.join(CONTEXT_ENCODER);
        if parts::is_in(folder) {
            return Ok(TextEncoder::load(&encoder, device)?);
        }
        if encoder.join("tokenizer.json").is_file() || encoder.join("vocab.txt").is_file() {
            return Ok(TextEncoder::load(&encoder, device)?);
        }
        let tokenizer = Tokenizer::from_folder(folder.join(QUESTION_TOKENIZER))?;
        Ok(TextEncoder::load_with(&encoder, tokenizer, device)?)
    }

    /// Writes the folder that [`Rag::load`] reads and transformers opens; what stood there before is
    /// replaced whole, or kept where writing fails. The knowledge base is saved by itself.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`]; [`rag_retrieve::EncoderError::NotATextEncoder`] where the retriever has embedders of the
    /// user's own, which have no weights to write.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        replace_folder(folder, |folder| self.write(folder))
    }

    /// Like [`Rag::save`], file by file into a folder that the caller puts into place.
    ///
    /// # Errors
    /// Those of [`Rag::save`].
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        if (self.config().generator.family().architecture()).is_some() {
            return parts::write(self, folder);
        }
        let question = self.retriever.question_text_encoder()?;
        let context = self.retriever.context_text_encoder()?;
        let checkpoint = Checkpoint {
            config: self.config(),
            generation: self.generation().clone(),
            question_encoder: question.encoder().clone(),
            generator: self.generator().clone(),
        };
        checkpoint.save(folder)?;
        question.save_tokenizer(folder.join(QUESTION_TOKENIZER))?;
        let tokenizer = folder.join(GENERATOR_TOKENIZER);
        self.tokenizer()
            .save(&tokenizer, &tokenizer_settings(self))?;
        context.save(folder.join(CONTEXT_ENCODER), Role::Context)?;
        Ok(())
    }
}

fn tokenizer_settings(rag: &Rag) -> Value {
    let generation = rag.generation();
    let token = |id: Option<u32>| id.and_then(|id| rag.tokenizer().token(id));
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": token(generation.pad_token_id),
        "bos_token": token(generation.bos_token_id),
        "eos_token": token(generation.eos_token_id.first().copied()),
    })
}
