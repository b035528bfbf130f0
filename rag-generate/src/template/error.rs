use std::{fmt, path::PathBuf};

/// Errors between a template and a prompt.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The source is not a template.
    #[error("the chat template is not valid Jinja; correct it, or give another")]
    Syntax(#[source] minijinja::Error),
    /// The template uses a variable that has no value.
    #[error(
        "the chat template uses `{name}`, which is not defined; it is given messages, tools, documents, \
         add_generation_prompt, date_string and enable_thinking, and bos_token and eos_token where they are set"
    )]
    Undefined {
        /// The expression.
        name: String,
        /// Where it stands.
        source: minijinja::Error,
    },
    /// The template calls `raise_exception`.
    #[error(
        "the chat template refuses the messages: {reason}; leave out the system text if it is that, or give another \
         template"
    )]
    Refused {
        /// The template's own words.
        reason: String,
    },
    /// The template cannot be rendered for another reason.
    #[error("the chat template fails; correct it, or give another")]
    Failed(#[source] minijinja::Error),
    /// A part is not in the prompt.
    #[error("the chat template leaves out the {part}; give one that writes it")]
    Dropped {
        /// The part.
        part: PromptPart,
    },
    /// A part is in the prompt more than once.
    #[error("the chat template writes the {part} {times} times; give one that writes it once")]
    Repeated {
        /// The part.
        part: PromptPart,
        /// How often.
        times: usize,
    },
    /// The question comes before the passage.
    #[error(
        "the chat template writes the question before the passage; give one that keeps their order"
    )]
    Reordered,
    /// A text is not in the prompt as it was given.
    #[error(
        "the chat template changes the text {given:?}, by trimming or escaping it; give a text without white space at \
         its ends, or another template"
    )]
    Changed {
        /// The text.
        given: String,
    },
    /// The pinned date is none.
    #[error("the date of the chat template is {found:?}; expected one such as 2024-07-26")]
    Date {
        /// The text found.
        found: String,
    },
    /// A folder has several templates, and none for a chat without tools.
    #[error("{path} has the chat templates {}, and none named default; give the source of one", .found.join(", "))]
    NoDefault {
        /// `tokenizer_config.json`.
        path: PathBuf,
        /// Names of the templates.
        found: Vec<String>,
    },
}

/// A part of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PromptPart {
    /// The system text.
    System,
    /// Title and text of a passage.
    Passage,
    /// The question.
    Question,
}

impl fmt::Display for PromptPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system text",
            Self::Passage => "passage",
            Self::Question => "question",
        })
    }
}

impl fmt::Debug for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rag_core::report(self, f)
    }
}
