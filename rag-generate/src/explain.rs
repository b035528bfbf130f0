//! An answer and where it came from, as a page for a browser.

use maud::{Markup, html};

use crate::{
    Answer, AnswerToken, Evidence,
    html::{badge, hue, page, probabilities},
};

const STYLE: &str = include_str!("explain.css");

impl Answer {
    /// A page that shows which passage each token came from: one HTML file in UTF-8 that loads nothing
    /// else, for light and dark screens.
    ///
    /// A token has the colour of its main passage, the stronger the larger that passage's share
    /// P(z|x,y_i,y_<i). Pointing at a token shows all shares, and so does a table. Passages follow with
    /// P(z|x), P(z|x,y) and their place in the source, numbered by falling P(z|x,y) as an [`Answer`]
    /// displays them.
    pub fn to_html(&self) -> String {
        let mut passages: Vec<usize> = (0..self.evidence.len()).collect();
        passages.sort_by(|&a, &b| {
            self.evidence[b]
                .posterior
                .total_cmp(&self.evidence[a].posterior)
        });
        let explained = Explained {
            answer: self,
            passages,
        };
        let body = html! {
            h1 dir="auto" { (self.question) }
            (explained.answer())
            (explained.passages())
            (explained.shares())
        };
        page(&self.question, STYLE, body)
    }
}

/// An answer with the positions of its passages by rank.
struct Explained<'a> {
    answer: &'a Answer,
    passages: Vec<usize>,
}

impl Explained<'_> {
    fn answer(&self) -> Markup {
        html! {
            p.answer dir="auto" {
                @for (i, token) in self.answer.tokens.iter().enumerate() {
                    @let (rank, share) = self.main_passage(token);
                    @let text = self.text(i);
                    @let word = text.trim_start();
                    // The space before a word stays outside its colour.
                    (text[..text.len() - word.len()])
                    span.token.mark[token.text.is_empty()] tabindex="0" data-passage=(rank + 1)
                        style=(coloured(rank, share)) { (word) (self.tip(i)) }
                }
            }
            p.soft {
                "P(y|x) = " (format_args!("{:.3}", self.answer.probability()))
                " \u{2002} log P(y|x) = " (format_args!("{:.3}", self.answer.log_likelihood))
                @if let Some(confidence) = self.answer.confidence {
                    " \u{2002} confidence = " (format_args!("{confidence:.3}"))
                }
                br;
                "Each token has the colour and number of the passage it came from most; a stronger colour is \
                 a larger share. Point at a token for the shares of all passages."
            }
        }
    }

    /// What appears where the i-th token is pointed at.
    fn tip(&self, i: usize) -> Markup {
        let token = &self.answer.tokens[i];
        html! {
            span.tip role="tooltip" dir="ltr" {
                b { (self.text(i).trim()) } " P = " (probability(token))
                @for (rank, &z) in self.passages.iter().enumerate() {
                    span.row style=(hue(rank)) {
                        (badge(rank))
                        span.name { (name(&self.answer.evidence[z])) }
                        span.number { (percent(share(token, z))) }
                    }
                }
            }
        }
    }

    fn passages(&self) -> Markup {
        html! {
            h2 { "Passages" }
            @for (rank, &z) in self.passages.iter().enumerate() {
                @let evidence = &self.answer.evidence[z];
                @let passage = &evidence.passage;
                section.passage style=(hue(rank)) {
                    h3 { (badge(rank)) span dir="auto" { (name(evidence)) } }
                    (probabilities(evidence.prior, evidence.posterior))
                    p dir="auto" { (passage.text) }
                    p.soft.source {
                        @if let Some(source) = &passage.source { (source) } @else { (passage.id) }
                    }
                }
            }
        }
    }

    /// A table of tokens by passages, for readers who do not point, and for print.
    fn shares(&self) -> Markup {
        html! {
            h2 { "Share of each passage in each token" }
            .wide {
                table {
                    tr {
                        th { "token" }
                        th { "P" }
                        @for rank in 0..self.passages.len() {
                            th style=(hue(rank)) { (badge(rank)) }
                        }
                    }
                    @for (i, token) in self.answer.tokens.iter().enumerate() {
                        tr {
                            th.soft[token.text.is_empty()] dir="auto" { (self.text(i).trim()) }
                            td { (probability(token)) }
                            @for (rank, &z) in self.passages.iter().enumerate() {
                                @let share = share(token, z);
                                td.share style=(coloured(rank, share)) { (percent(share)) }
                            }
                        }
                    }
                }
            }
        }
    }

    /// The rank of a token's main passage, and its share.
    fn main_passage(&self, token: &AnswerToken) -> (usize, f32) {
        let shares = self.passages.iter().map(|&z| share(token, z)).enumerate();
        let main = shares.reduce(|best, next| if next.1 > best.1 { next } else { best });
        main.unwrap_or((0, 0.0))
    }

    /// What stands for the i-th token: tokens without text are marks such as the end of the answer.
    fn text(&self, i: usize) -> &str {
        let tokens = &self.answer.tokens;
        match tokens[i].text.as_str() {
            "" if i + 1 == tokens.len() => "end",
            "" => "·",
            text => text,
        }
    }
}

/// CSS of a background in a passage's colour, the stronger the larger its share.
fn coloured(rank: usize, share: f32) -> String {
    format!("{};--share:{share:.3}", hue(rank))
}

fn probability(token: &AnswerToken) -> String {
    format!("{:.3}", token.log_probability.exp())
}

fn percent(share: f32) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn share(token: &AnswerToken, passage: usize) -> f32 {
    token.shares.get(passage).copied().unwrap_or(0.0)
}

fn name(evidence: &Evidence) -> &str {
    match evidence.passage.title.as_str() {
        "" => &evidence.passage.id,
        title => title,
    }
}

#[cfg(test)]
mod tests {
    use rag_core::{Passage, Source};

    use super::*;

    fn answer() -> Answer {
        let evidence = |passage, prior, posterior| Evidence {
            passage,
            score: 0.0,
            prior,
            posterior,
        };
        let token = |text: &str, shares: [f32; 2]| AnswerToken {
            id: 0,
            text: text.into(),
            log_probability: 0.5f32.ln(),
            shares: shares.into(),
        };
        let mut first = Passage::new("first", "A <b>bold</b> title", "Salt & \"pepper\"");
        first.source = Some(Source {
            file: "it's/a.md".into(),
            bytes: 3..18,
            page: None,
        });
        Answer {
            question: "长江</title><script>x</script>?".into(),
            text: "东 sea<".into(),
            log_likelihood: 0.25f32.ln(),
            confidence: None,
            tokens: vec![
                token("东", [0.25, 0.75]),
                token(" sea<", [0.9, 0.1]),
                token("", [0.6, 0.4]),
            ],
            evidence: vec![
                evidence(first, 0.7, 0.4),
                evidence(Passage::new("second#1", "", "东海。"), 0.3, 0.6),
            ],
        }
    }

    #[test]
    fn nothing_of_the_texts_becomes_markup() {
        let page = answer().to_html();
        for kept_out in ["<script", "<b>bold", "& \"", "sea<<"] {
            assert!(!page.contains(kept_out), "{kept_out}");
        }
        assert!(page.contains("<title>长江&lt;/title&gt;&lt;script&gt;x&lt;/script&gt;?</title>"));
        assert!(page.contains("A &lt;b&gt;bold&lt;/b&gt; title"));
        assert!(page.contains("it's/a.md, bytes 3–18"));
        // Nothing is fetched from elsewhere.
        for outside in ["http", "src=", "<link", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn every_token_and_passage_is_there_with_its_shares() {
        let page = answer().to_html();
        // The passage of larger posterior is number 1.
        let order = [
            "second#1",
            "东海。",
            "A &lt;b&gt;",
            "Salt &amp; &quot;pepper&quot;",
        ];
        let legend = &page[page.find("<h2>Passages").unwrap()..];
        let places: Vec<_> = order
            .iter()
            .map(|text| legend.find(text).unwrap())
            .collect();
        assert!(places.is_sorted(), "{places:?}");
        for number in ["0.300", "0.600", "0.700", "0.400"] {
            assert!(legend.contains(&format!(">{number}</span>")), "{number}");
        }
        for token in [
            "data-passage=\"1\" style=\"--hue:212;--share:0.750\">东",
            "data-passage=\"2\" style=\"--hue:350;--share:0.900\">sea&lt;",
            "data-passage=\"2\" style=\"--hue:350;--share:0.600\">end",
        ] {
            assert!(page.contains(token), "{token}");
        }
        for share in ["75.0 %", "25.0 %", "10.0 %", "90.0 %", "40.0 %", "60.0 %"] {
            assert_eq!(page.matches(share).count(), 2, "{share} in tip and table");
        }
        assert_eq!(page.matches("class=\"token").count(), 3);
    }

    #[test]
    fn an_answer_without_tokens_or_passages_is_a_page_too() {
        let empty = Answer {
            tokens: Vec::new(),
            evidence: Vec::new(),
            ..answer()
        };
        assert!(empty.to_html().ends_with("</html>\n"));
    }
}
