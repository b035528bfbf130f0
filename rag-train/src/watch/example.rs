use maud::{Markup, html};
use rag_generate::html::{badge, hue, probabilities};
use serde::{Deserialize, Serialize};

use super::number::short;

/// A question, its answer, and where it came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExampleRow {
    /// The question.
    pub question: String,
    /// Accepted answers.
    pub accepted: Vec<String>,
    /// The answer.
    pub answer: String,
    /// Whether it equals an accepted one.
    pub exact: bool,
    /// The passages that were retrieved, the best first; ten are shown.
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

impl ExampleRow {
    /// The example as a section of a page.
    pub(super) fn section(&self) -> Markup {
        let (class, verdict) = if self.exact {
            ("right", "exact")
        } else {
            ("wrong", "not exact")
        };
        let (shown, more) = self.passages.split_at(self.passages.len().min(PASSAGES));
        html! {
            section.example {
                h3 dir="auto" { (self.question) }
                p {
                    b dir="auto" { (self.answer) } " " span.verdict.(class) { (verdict) } br;
                    span.soft dir="auto" { "accepted: " (self.accepted.join(" · ")) }
                }
                @for (rank, passage) in shown.iter().enumerate() {
                    @let excerpt = excerpt(&passage.text);
                    .passage style=(hue(rank)) {
                        div {
                            (badge(rank)) " " b dir="auto" { (passage.title) }
                            @if passage.gold { " " span.verdict.right { "gold" } }
                            p.soft dir="auto" { (excerpt) @if excerpt != passage.text { "…" } }
                        }
                        div { (probabilities(passage.prior, passage.posterior)) }
                    }
                }
                @if !more.is_empty() {
                    @let posterior: f32 = more.iter().map(|passage| passage.posterior).sum();
                    p.soft {
                        "And " (more.len()) " more, with a P(z|x,y) of " (short(posterior.into())) " together."
                    }
                }
            }
        }
    }
}

fn excerpt(text: &str) -> &str {
    let end = text.char_indices().nth(EXCERPT);
    end.map_or(text, |(end, _)| &text[..end])
}
