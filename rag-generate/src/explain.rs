//! An answer and where it came from, as a page to read in a browser.

use std::fmt::{self, Display};

use crate::{
    Answer, AnswerToken, Evidence,
    html::{self, Bar, Escaped, Hue},
};

impl Answer {
    /// A page that shows which passage each token came from: one HTML file in UTF-8 that needs nothing
    /// else, for light and dark screens.
    ///
    /// A token has the colour of its main passage, the stronger the larger that passage's share
    /// P(z|x,y_i,y_<i); pointing at it shows all shares, and so does a table. Passages follow with
    /// P(z|x), P(z|x,y) and their place in the source, numbered by falling P(z|x,y) as where an
    /// [`Answer`] is displayed.
    pub fn to_html(&self) -> String {
        let mut ranks: Vec<usize> = (0..self.evidence.len()).collect();
        ranks.sort_by(|&a, &b| {
            self.evidence[b]
                .posterior
                .total_cmp(&self.evidence[a].posterior)
        });
        let body = Page {
            answer: self,
            passages: ranks,
        };
        html::page(&self.question, STYLE, body)
    }
}

/// An answer with the positions of its passages by rank.
struct Page<'a> {
    answer: &'a Answer,
    passages: Vec<usize>,
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let question = Escaped(&self.answer.question);
        writeln!(f, "<h1 dir=\"auto\">{question}</h1>")?;
        self.answer(f)?;
        self.legend(f)?;
        self.shares(f)
    }
}

impl Page<'_> {
    fn answer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<p class=\"answer\" dir=\"auto\">")?;
        for (i, token) in self.answer.tokens.iter().enumerate() {
            let (rank, share) = self.main_passage(token);
            let class = if token.text.is_empty() {
                "token mark"
            } else {
                "token"
            };
            // The space before a word stays outside its colour.
            let text = self.text(i);
            let word = text.trim_start();
            write!(
                f,
                "{}<span class=\"{class}\" tabindex=\"0\" data-passage=\"{}\" style=\"{};--share:{share:.3}\">{}",
                &text[..text.len() - word.len()],
                rank + 1,
                Hue(rank),
                Escaped(word),
            )?;
            self.tip(f, i)?;
            f.write_str("</span>")?;
        }
        writeln!(f, "</p>")?;
        writeln!(
            f,
            "<p class=\"soft\">P(y|x) = {:.3} &ensp; log P(y|x) = {:.3}<br>Each token has the colour and \
             number of the passage it came from most; a stronger colour is a larger share. Point at a token \
             for the shares of all passages.</p>",
            self.answer.probability(),
            self.answer.log_likelihood,
        )
    }

    /// What appears where a token is pointed at.
    fn tip(&self, f: &mut fmt::Formatter<'_>, i: usize) -> fmt::Result {
        let token = &self.answer.tokens[i];
        write!(
            f,
            "<span class=\"tip\" role=\"tooltip\" dir=\"ltr\"><b>{}</b> P = {:.3}",
            Escaped(self.text(i).trim()),
            token.log_probability.exp()
        )?;
        for (rank, &z) in self.passages.iter().enumerate() {
            let share = share(token, z);
            write!(
                f,
                "<span class=\"row\" style=\"{}\"><i class=\"badge\">{}</i><span class=\"name\">{}</span>\
                 <span class=\"number\">{:.1} %</span></span>",
                Hue(rank),
                rank + 1,
                Escaped(name(&self.answer.evidence[z])),
                100.0 * share
            )?;
        }
        f.write_str("</span>")
    }

    fn legend(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<h2>Passages</h2>")?;
        for (rank, &z) in self.passages.iter().enumerate() {
            let evidence = &self.answer.evidence[z];
            writeln!(
                f,
                "<section class=\"passage\" style=\"{}\">\n<h3><i class=\"badge\">{}</i><span dir=\"auto\">{}</span></h3>",
                Hue(rank),
                rank + 1,
                Escaped(name(evidence)),
            )?;
            Bar("P(z|x)", "before the answer is known", evidence.prior).fmt(f)?;
            Bar("P(z|x,y)", "given the answer", evidence.posterior).fmt(f)?;
            writeln!(f, "<p dir=\"auto\">{}</p>", Escaped(&evidence.passage.text))?;
            let source = match &evidence.passage.source {
                Some(source) => source.to_string(),
                None => evidence.passage.id.clone(),
            };
            let source = Escaped(&source);
            writeln!(f, "<p class=\"soft source\">{source}</p>\n</section>")?;
        }
        Ok(())
    }

    /// Tokens by passages, for those who do not point, and for print.
    fn shares(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<h2>Share of each passage in each token</h2>\n<div class=\"wide\"><table>\n<tr><th>token</th><th>P</th>")?;
        for rank in 0..self.passages.len() {
            write!(
                f,
                "<th style=\"{}\"><i class=\"badge\">{}</i></th>",
                Hue(rank),
                rank + 1
            )?;
        }
        writeln!(f, "</tr>")?;
        for (i, token) in self.answer.tokens.iter().enumerate() {
            let class = if token.text.is_empty() {
                " class=\"soft\""
            } else {
                ""
            };
            write!(
                f,
                "<tr><th{class} dir=\"auto\">{}</th><td>{:.3}</td>",
                Escaped(self.text(i).trim()),
                token.log_probability.exp()
            )?;
            for (rank, &z) in self.passages.iter().enumerate() {
                let share = share(token, z);
                write!(
                    f,
                    "<td class=\"share\" style=\"{};--share:{share:.3}\">{:.1} %</td>",
                    Hue(rank),
                    100.0 * share
                )?;
            }
            writeln!(f, "</tr>")?;
        }
        writeln!(f, "</table></div>")
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

fn share(token: &AnswerToken, passage: usize) -> f32 {
    token.shares.get(passage).copied().unwrap_or(0.0)
}

fn name(evidence: &Evidence) -> &str {
    match evidence.passage.title.as_str() {
        "" => &evidence.passage.id,
        title => title,
    }
}

const STYLE: &str = r#".answer { font-size: 1.75rem; line-height: 2.3; margin: 0; white-space: pre-wrap; }
.token { position: relative; padding: .18em .08em; border-radius: .15em; background: hsl(var(--hue) 85% 55% / calc(var(--share) * .55)); border-bottom: 3px solid hsl(var(--hue) 70% var(--deep)); cursor: help; -webkit-box-decoration-break: clone; box-decoration-break: clone; }
.token + .token { margin-left: 2px; }
.token::after { content: attr(data-passage); font-size: .7rem; font-weight: 600; vertical-align: super; color: hsl(var(--hue) 70% var(--deep)); margin-left: .15em; }
.mark { font-size: .875rem; padding: .4em .5em; color: var(--soft); }
.token + .mark { margin-left: .6em; }
.tip { display: none; position: absolute; left: 0; top: calc(100% + 4px); z-index: 1; width: max-content; max-width: min(22rem, 80vw); padding: .6rem .75rem; border: 1px solid var(--line); border-radius: .4rem; background: var(--card); color: var(--ink); box-shadow: 0 4px 16px rgb(0 0 0 / .2); font-size: .875rem; line-height: 1.5; white-space: normal; }
.token:hover .tip, .token:focus .tip { display: block; }
.row { display: flex; gap: .5rem; align-items: center; margin-top: .25rem; }
.row .name { flex: 1; }
h3 .badge { margin-right: .5rem; }
.passage { background: var(--card); border: 1px solid var(--line); border-left: 5px solid hsl(var(--hue) 70% var(--deep)); border-radius: .4rem; padding: .9rem 1.1rem; margin: 0 0 .8rem; }
.passage p { margin: .7rem 0 0; }
.passage .source { margin-top: .4rem; font-size: .8rem; }
.share { background: hsl(var(--hue) 85% 55% / calc(var(--share) * .55)); }
"#;

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
        assert!(page.contains("it&#39;s/a.md, bytes 3–18"));
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
