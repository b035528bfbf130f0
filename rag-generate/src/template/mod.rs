//! Prompts for decoder-only generators.
//!
//! A prompt is three segments, whose token ids are put one after the other: the head, the passage, and the question with
//! what asks for an answer. Each is encoded by itself, so that head and passage have the same ids whatever is asked,
//! and so that an answer's ids follow those of its prompt.
//!
//! The files import from each other in this direction: `chat` renders a chat template, `read` finds one.

mod chat;
pub(crate) mod error;
mod read;

use rag_core::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use chat::{Chat, Messages, Surroundings};
pub use error::{PromptPart, TemplateError};
pub(crate) use read::TEMPLATE;

/// How a decoder-only generator is asked: a text around passage and question, and around that, for a model that was
/// trained on chats, what its chat template writes.
///
/// ```
/// use rag_generate::Template;
///
/// // A model that continues texts.
/// let plain = Template::plain();
/// // One that answers messages. The source is in the model's folder, see `Template::from_folder`.
/// let source = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}<|assistant|>";
/// let chat = Template::chat(source).with_system("Answer in a few words.");
/// chat.check()?;
/// # let _ = plain;
/// # Ok::<_, rag_generate::Error>(())
/// ```
///
/// Passage, title and question are only text: what spells a special token in them is not one. The template's own texts
/// and those that are set here may hold special tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Around the message; without it the message is the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chat: Option<Chat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    #[serde(default)]
    before: String,
    #[serde(default = "title_separator")]
    title_separator: String,
    #[serde(default = "between")]
    between: String,
    #[serde(default)]
    after: String,
    #[serde(default)]
    lead: String,
}

fn title_separator() -> String {
    "\n".into()
}

fn between() -> String {
    "\n\nQuestion: ".into()
}

/// Token ids of a prompt without its passage.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Before the passage: the same for every question.
    pub head: Vec<u32>,
    /// Spaces that the passage begins with: those that end the text before it, since most tokens of words have theirs in
    /// front.
    pub spaces: String,
    /// After the passage.
    pub tail: Vec<u32>,
}

impl Frame {
    /// Tokens of both.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

impl Template {
    /// A text that a model goes on with, which begins with BOS if the tokenizer begins texts so:
    ///
    /// ```text
    /// {title}
    /// {text}
    ///
    /// Question: {question}
    /// Answer:
    /// ```
    ///
    /// An answer begins with a space.
    pub fn plain() -> Self {
        Self {
            chat: None,
            system: None,
            before: String::new(),
            title_separator: title_separator(),
            between: between(),
            after: "\nAnswer:".into(),
            lead: " ".into(),
        }
    }

    /// A message of a chat, `{title}\n{text}\n\nQuestion: {question}`, by the Jinja template `source`, which also writes
    /// BOS if it is to be there.
    ///
    /// It is rendered as transformers does, but for the date: see [`Template::with_date`].
    pub fn chat(source: impl Into<String>) -> Self {
        Self {
            chat: Some(Chat::new(source.into())),
            after: String::new(),
            lead: String::new(),
            ..Self::plain()
        }
    }

    /// Sets the system text, in place of the chat template's own. Before a plain prompt it stands by itself, with an
    /// empty line after it.
    #[must_use]
    pub fn with_system(mut self, text: impl Into<String>) -> Self {
        self.system = Some(text.into());
        self
    }

    /// Sets the text before the passage; there is none by default.
    #[must_use]
    pub fn with_before(mut self, text: impl Into<String>) -> Self {
        self.before = text.into();
        self
    }

    /// Sets the text between title and text of a passage that has both.
    #[must_use]
    pub fn with_title_separator(mut self, text: impl Into<String>) -> Self {
        self.title_separator = text.into();
        self
    }

    /// Sets the text between passage and question. Special tokens in it are text, as in the question.
    #[must_use]
    pub fn with_between(mut self, text: impl Into<String>) -> Self {
        self.between = text.into();
        self
    }

    /// Sets the text after the question.
    #[must_use]
    pub fn with_after(mut self, text: impl Into<String>) -> Self {
        self.after = text.into();
        self
    }

    /// Sets what an answer begins with, in training and where answers are scored: white space, or nothing. A tokenizer that
    /// begins each text with a space of its own, as SentencePiece's do, wants nothing here.
    #[must_use]
    pub fn with_lead(mut self, text: impl Into<String>) -> Self {
        self.lead = text.into();
        self
    }

    /// Sets the day that it is for the chat template, such as `2026-01-31`. It is 2024-07-26 by default and never today,
    /// so that a model is asked tomorrow what it was asked in training. A plain prompt has no date.
    #[must_use]
    pub fn with_date(mut self, date: impl Into<String>) -> Self {
        if let Some(chat) = &mut self.chat {
            chat.date = date.into();
        }
        self
    }

    /// Sets whether the model thinks before it answers, where its chat template asks for `enable_thinking`. It does not by
    /// default: an answer of some tokens would end among its thoughts.
    #[must_use]
    pub fn with_enable_thinking(mut self, think: bool) -> Self {
        if let Some(chat) = &mut self.chat {
            chat.enable_thinking = think;
        }
        self
    }

    /// Sets the texts of BOS and EOS for the chat template.
    #[must_use]
    pub fn with_tokens(mut self, bos: Option<String>, eos: Option<String>) -> Self {
        if let Some(chat) = &mut self.chat {
            chat.bos_token = bos;
            chat.eos_token = eos;
        }
        self
    }

    /// The Jinja source of the chat template.
    pub fn source(&self) -> Option<&str> {
        self.chat.as_ref().map(|chat| chat.source.as_str())
    }

    /// The text of the token that begins a text, as the chat template knows it.
    pub(crate) fn start(&self) -> Option<&str> {
        self.chat.as_ref()?.bos_token.as_deref()
    }

    /// The token that ends a message: the one of `ends` that the chat template writes after an answer, else its `eos_token`,
    /// which in Gemma ends texts alone.
    pub(crate) fn end(&self, tokenizer: &Tokenizer, ends: &[u32]) -> Option<u32> {
        let chat = self.chat.as_ref()?;
        let after = chat.after_answer().unwrap_or_default();
        let after = after.trim_start();
        let comes_first = |end: &u32| {
            let text = tokenizer.token(*end);
            text.is_some_and(|text| after.starts_with(&text))
        };
        let eos = || tokenizer.id(chat.eos_token.as_deref()?);
        ends.iter().copied().find(comes_first).or_else(eos)
    }

    /// The template that a folder with the same chat template gives, without settings of one's own.
    pub(crate) fn as_published(&self) -> Self {
        match &self.chat {
            None => Self::plain(),
            Some(chat) => {
                Self::chat(&chat.source).with_tokens(chat.bos_token.clone(), chat.eos_token.clone())
            }
        }
    }

    /// Checks that the template writes what it is given, once and in order.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn check(&self) -> Result<()> {
        self.surroundings()?;
        Ok(())
    }

    /// The text that a generator learns to write for `answer`.
    pub fn answer_text(&self, answer: &str) -> String {
        format!("{}{answer}", self.lead)
    }

    /// The text of a passage.
    pub(crate) fn passage_text(&self, title: &str, text: &str) -> String {
        match (title, text) {
            ("", only) | (only, "") => only.to_owned(),
            _ => format!("{title}{}{text}", self.title_separator),
        }
    }

    /// Token ids before and after a passage where `question` is asked.
    ///
    /// # Errors
    /// [`TemplateError`]; those of the tokenizer.
    pub(crate) fn frame(&self, question: &str, tokenizer: &Tokenizer) -> Result<Frame> {
        let Surroundings { head, tail } = self.surroundings()?;
        let text = head.trim_end_matches(' ');
        let spaces = match head.is_empty() && tokenizer.begins_with_space() {
            true => " ".to_owned(),
            false => head[text.len()..].to_owned(),
        };
        let mut head = tokenizer.encode_bare(text)?;
        if self.chat.is_none() {
            let bos = tokenizer.bos()?;
            if !head.starts_with(&bos) {
                head.splice(0..0, bos);
            }
        }
        // Text after the question is encoded with it, as it would be in one text: `?` and a line's end may be one token.
        let text = tokenizer.first_mark(&tail)?.unwrap_or(tail.len());
        let (text, marks) = tail.split_at(text);
        let question = format!("{}{question}{text}", self.between);
        let mut tail = tokenizer.encode_text(&question)?;
        tail.extend(tokenizer.encode_bare(marks)?);
        Ok(Frame { head, spaces, tail })
    }

    fn surroundings(&self) -> Result<Surroundings, TemplateError> {
        let system = self.system.as_deref();
        let Some(chat) = &self.chat else {
            let system = system.map(|text| format!("{text}\n\n"));
            return Ok(Surroundings {
                head: system.unwrap_or_default() + &self.before,
                tail: self.after.clone(),
            });
        };
        chat.surroundings(Messages {
            system,
            before: &self.before,
            between: &self.between,
            after: &self.after,
        })
    }
}

#[cfg(test)]
mod tests;
