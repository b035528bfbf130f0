use std::fmt::{self, Display};

use rag_generate::html::{Bar, Escaped, Hue};
use serde::{Deserialize, Serialize};

use super::number::short;

/// A question, its answer, and where it came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExampleRow {
    /// What was asked.
    pub question: String,
    /// Accepted answers.
    pub accepted: Vec<String>,
    /// What was answered.
    pub answer: String,
    /// Whether it equals an accepted one.
    pub exact: bool,
    /// What was retrieved, best passage first; ten are shown.
    pub passages: Vec<ExamplePassage>,
}

/// A passage of an [`ExampleRow`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExamplePassage {
    /// Its title.
    pub title: String,
    /// Its text, of which the beginning is shown.
    pub text: String,
    /// P(z|x).
    pub prior: f32,
    /// P(z|x,y).
    pub posterior: f32,
    /// Whether it holds the answer.
    pub gold: bool,
}

const PASSAGES: usize = 10;

/// Characters of a passage that are shown.
const EXCERPT: usize = 400;

/// An example in HTML.
pub(super) struct Section<'a>(pub &'a ExampleRow);

impl Display for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let example = self.0;
        let (class, verdict) = if example.exact {
            ("right", "exact")
        } else {
            ("wrong", "not exact")
        };
        writeln!(
            f,
            "<section class=\"example\">\n<h3 dir=\"auto\">{}</h3>\n\
             <p><b dir=\"auto\">{}</b> <span class=\"verdict {class}\">{verdict}</span><br>\
             <span class=\"soft\" dir=\"auto\">accepted: {}</span></p>",
            Escaped(&example.question),
            Escaped(&example.answer),
            Escaped(&example.accepted.join(" · ")),
        )?;
        for (rank, passage) in example.passages.iter().enumerate().take(PASSAGES) {
            let gold = if passage.gold {
                " <span class=\"verdict right\">gold</span>"
            } else {
                ""
            };
            writeln!(
                f,
                "<div class=\"passage\" style=\"{}\"><div><i class=\"badge\">{}</i> <b dir=\"auto\">{}</b>{gold}\
                 <p class=\"soft\" dir=\"auto\">{}{}</p></div><div>\n{}{}</div></div>",
                Hue(rank),
                rank + 1,
                Escaped(&passage.title),
                Escaped(excerpt(&passage.text)),
                if excerpt(&passage.text) == passage.text {
                    ""
                } else {
                    "…"
                },
                Bar("P(z|x)", "before the answer is known", passage.prior),
                Bar("P(z|x,y)", "given the answer", passage.posterior),
            )?;
        }
        let more = example.passages.get(PASSAGES..).unwrap_or_default();
        if !more.is_empty() {
            let posterior: f32 = more.iter().map(|passage| passage.posterior).sum();
            writeln!(
                f,
                "<p class=\"soft\">And {} more, with a P(z|x,y) of {} together.</p>",
                more.len(),
                short(posterior.into())
            )?;
        }
        f.write_str("</section>\n")
    }
}

fn excerpt(text: &str) -> &str {
    let end = text.char_indices().nth(EXCERPT);
    end.map_or(text, |(end, _)| &text[..end])
}
