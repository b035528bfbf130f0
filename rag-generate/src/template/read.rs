//! Templates of checkpoint folders and of GGUF files.

use std::{fs, path::Path};

use rag_core::checkpoint::{
    gguf::{Gguf, GgufTokenizer},
    read_json,
};
use serde::Deserialize;

use super::{Template, error::TemplateError};
use crate::error::Result;

/// The field of `tokenizer_config.json` in which [`LanguageModel::save`](crate::LanguageModel::save) keeps a template that is
/// more than the chat template.
pub(crate) const TEMPLATE: &str = "rag_template";

/// The fields of `tokenizer_config.json` about chats.
#[derive(Default, Deserialize)]
struct Settings {
    #[serde(default)]
    chat_template: Option<Sources>,
    #[serde(default)]
    bos_token: Option<Token>,
    #[serde(default)]
    eos_token: Option<Token>,
    /// See [`TEMPLATE`].
    #[serde(default)]
    rag_template: Option<Template>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Sources {
    One(String),
    Several(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

impl Token {
    fn text(self) -> String {
        match self {
            Self::Text(text) | Self::Added { content: text } => text,
        }
    }
}

impl Template {
    /// Reads the template that was saved in a folder, else the chat template of a folder in the Hugging Face layout:
    /// `chat_template.jinja`, else what `tokenizer_config.json` says, of several the one named `default`. `None` where the
    /// folder has none.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`], [`rag_core::Error::Json`], [`TemplateError::NoDefault`].
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        let folder = folder.as_ref();
        let path = folder.join("tokenizer_config.json");
        let settings = match path.is_file() {
            true => read_json(&path)?,
            false => Settings::default(),
        };
        if settings.rag_template.is_some() {
            return Ok(settings.rag_template);
        }
        let own = folder.join("chat_template.jinja");
        let source = if own.is_file() {
            Some(fs::read_to_string(&own).map_err(rag_core::Error::io(&own))?)
        } else {
            match settings.chat_template {
                None => None,
                Some(Sources::One(source)) => Some(source),
                Some(Sources::Several(named)) => Some(usual(named, &path)?),
            }
        };
        let [bos, eos] =
            [settings.bos_token, settings.eos_token].map(|token| token.map(Token::text));
        Ok(source.map(|source| Self::chat(source).with_tokens(bos, eos)))
    }

    /// Reads the chat template of a GGUF file, whose tokenizer is `tokenizer`. `None` where the file has none.
    ///
    /// # Errors
    /// [`rag_core::Error::Gguf`].
    pub fn from_gguf(gguf: &Gguf, tokenizer: &GgufTokenizer) -> Result<Option<Self>> {
        let text = |id: Option<u32>| tokenizer.tokenizer.id_to_token(id?);
        let [bos, eos] = [tokenizer.bos, tokenizer.eos].map(text);
        let source = gguf.chat_template()?;
        Ok(source.map(|source| Self::chat(source).with_tokens(bos, eos)))
    }
}

/// The template for a chat without tools.
fn usual(templates: Vec<Named>, path: &Path) -> Result<String, TemplateError> {
    let mut found = Vec::new();
    for Named { name, template } in templates {
        if name == "default" {
            return Ok(template);
        }
        found.push(name);
    }
    Err(TemplateError::NoDefault {
        path: path.to_owned(),
        found,
    })
}
