//! A chat template, in Jinja as transformers renders it, and the texts that it writes around passage and question.

use std::{collections::BTreeMap, error::Error, fmt};

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context, syntax::SyntaxConfig};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize};
use time::{Date, format_description::parse_strftime_borrowed};

use super::error::{PromptPart, TemplateError};

type Result<T> = std::result::Result<T, TemplateError>;

/// Stand for passage, question and answer while the template is rendered: characters that no text contains.
const PASSAGE: &str = "\u{e000}";
const QUESTION: &str = "\u{e001}";
const ANSWER: &str = "\u{e002}";
/// A text by which a template that changes its messages is recognized.
pub(super) const PROBE: &str = "Ab \"c\"  <b> & 'd'\n\n# e";
/// Steps that a template may take, each 64 bytes of text at most. Those of published models take some thousands.
const FUEL: u64 = 1_000_000;

/// A chat template and the values of its variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chat {
    /// The template itself.
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token: Option<String>,
    /// The day that it is, for the template.
    #[serde(default = "usual_date")]
    pub date: String,
    #[serde(default)]
    pub enable_thinking: bool,
}

/// The date in the templates of Llama 3.1 where they know no other.
fn usual_date() -> String {
    "2024-07-26".into()
}

/// The texts of the messages, but for passage and question.
#[derive(Clone, Copy)]
pub(super) struct Messages<'a> {
    pub system: Option<&'a str>,
    /// Before the passage.
    pub before: &'a str,
    /// Between passage and question.
    pub between: &'a str,
    /// After the question.
    pub after: &'a str,
}

/// A prompt without passage, question and what is between them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Before the passage.
    pub head: String,
    /// After the question.
    pub tail: String,
}

impl Chat {
    pub fn new(source: String) -> Self {
        Self {
            source,
            bos_token: None,
            eos_token: None,
            date: usual_date(),
            enable_thinking: false,
        }
    }

    /// Renders the messages with marks in place of passage and question, and splits the text there.
    pub fn surroundings(&self, messages: Messages<'_>) -> Result<Surroundings> {
        let Messages {
            system,
            before,
            between,
            after,
        } = messages;
        let render = |passage: &str, question: &str| {
            let user = format!("{before}{passage}{between}{question}{after}");
            let system = system.map(|system| ("system", system));
            let messages: Vec<_> = system.into_iter().chain([("user", &user[..])]).collect();
            self.render(&messages, true)
        };

        let text = render(PASSAGE, QUESTION)?;
        let passage = only(&text, PASSAGE, PromptPart::Passage)?;
        let question = only(&text, QUESTION, PromptPart::Question)?;
        if question < passage {
            return Err(TemplateError::Reordered);
        }
        let head = &text[..passage];
        let middle = &text[passage + PASSAGE.len()..question];
        let tail = &text[question + QUESTION.len()..];
        let changed = |given: &str| {
            Err(TemplateError::Changed {
                given: given.to_owned(),
            })
        };
        if !head.ends_with(before) {
            return changed(before);
        }
        if middle != between {
            return changed(between);
        }
        if !tail.starts_with(after) {
            return changed(after);
        }
        if system.is_some_and(|system| !text.contains(system.trim())) {
            let part = PromptPart::System;
            return Err(TemplateError::Dropped { part });
        }
        if render(PROBE, PROBE)? != format!("{head}{PROBE}{between}{PROBE}{tail}") {
            return changed(PROBE);
        }
        Ok(Surroundings {
            head: head.to_owned(),
            tail: tail.to_owned(),
        })
    }

    /// The text that the template writes after an answer, the end of its message first; `None` where it writes no answers.
    pub fn after_answer(&self) -> Option<String> {
        let messages = [("user", QUESTION), ("assistant", ANSWER)];
        let text = self.render(&messages, false).ok()?;
        let (_, after) = text.rsplit_once(ANSWER)?;
        Some(after.to_owned())
    }

    /// Renders messages, each with the role that says it; where `asks`, with the beginning of an answer after them.
    fn render(&self, messages: &[(&str, &str)], asks: bool) -> Result<String> {
        let date = self.date()?;
        let source = without_generation(&self.source);
        let environment = environment(date).map_err(TemplateError::Failed)?;
        let template = environment
            .template_from_named_str("chat_template", &source)
            .map_err(TemplateError::Syntax)?;
        let messages: Vec<Value> = (messages.iter())
            .map(|&(role, content)| context! { role => role, content => content })
            .collect();
        let variables = self.variables(date)?;
        let context = context! { messages => messages, add_generation_prompt => asks, ..variables };
        template.render(context).map_err(failed)
    }

    fn date(&self) -> Result<Date> {
        (parse_strftime_borrowed("%Y-%m-%d").ok())
            .and_then(|format| Date::parse(&self.date, &format).ok())
            .ok_or_else(|| TemplateError::Date {
                found: self.date.clone(),
            })
    }

    /// Variables of the template beside the messages, as transformers gives them. One that is not set is not defined.
    fn variables(&self, date: Date) -> Result<Value> {
        let date = written(date, "%d %b %Y").map_err(TemplateError::Failed)?;
        let mut variables = BTreeMap::from([
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("date_string", Value::from(date)),
            ("enable_thinking", Value::from(self.enable_thinking)),
        ]);
        let set = [
            ("bos_token", self.bos_token.as_ref().map(Value::from)),
            ("eos_token", self.eos_token.as_ref().map(Value::from)),
        ];
        variables.extend(
            set.into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        Ok(Value::from(variables))
    }
}

/// The rules that transformers renders templates by, and its two functions.
fn environment<'a>(date: Date) -> std::result::Result<Environment<'a>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    // A variable without a value may be asked for, but not written.
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.add_function("raise_exception", |reason: String| {
        let error = minijinja::Error::new(ErrorKind::InvalidOperation, reason.clone());
        Err::<Value, _>(error.with_source(Refusal(reason)))
    });
    environment.add_function("strftime_now", move |format: String| written(date, &format));
    Ok(environment)
}

/// The reason that a template gives to `raise_exception`.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refusal {}

/// A date as `strftime` writes it, at midnight.
fn written(date: Date, format: &str) -> std::result::Result<String, minijinja::Error> {
    let failed = |reason: String| {
        let detail = format!("strftime_now cannot write {format:?}: {reason}");
        minijinja::Error::new(ErrorKind::InvalidOperation, detail)
    };
    let items = parse_strftime_borrowed(format).map_err(|error| failed(error.to_string()))?;
    (date.midnight().assume_utc().format(&items)).map_err(|error| failed(error.to_string()))
}

/// Where `mark` stands in `text`, if once.
fn only(text: &str, mark: &str, part: PromptPart) -> Result<usize> {
    let mut found = text.match_indices(mark).map(|(at, _)| at);
    let first = found.next().ok_or(TemplateError::Dropped { part })?;
    match found.count() {
        0 => Ok(first),
        more => Err(TemplateError::Repeated {
            part,
            times: more + 1,
        }),
    }
}

fn failed(error: minijinja::Error) -> TemplateError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(found) = cause {
        if let Some(Refusal(reason)) = found.downcast_ref() {
            return TemplateError::Refused {
                reason: reason.clone(),
            };
        }
        cause = found.source();
    }
    match error.detail().and_then(undefined) {
        Some(name) => TemplateError::Undefined {
            name: name.to_owned(),
            source: error,
        },
        None => TemplateError::Failed(error),
    }
}

/// The expression without a value, of the engine's words for it: "`name` is undefined".
fn undefined(detail: &str) -> Option<&str> {
    let (name, _) = detail.split_once("` is undefined")?;
    name.rsplit('`').next()
}

/// The template without `{% generation %}`, a tag of transformers that says which tokens a model is trained on. It
/// becomes another that does nothing, so that the white space around it is treated the same.
fn without_generation(source: &str) -> String {
    let mut written = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let tag = rest[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let (before, tag) = rest.split_at(rest.len() - tag.len());
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, after) = tag.split_at(tag.find(|c| !name(c)).unwrap_or(tag.len()));
        written.push_str(before);
        written.push_str(match name {
            "generation" => "if true",
            "endgeneration" => "endif",
            other => other,
        });
        rest = after;
    }
    written.push_str(rest);
    written
}
