use std::ops::Range;

use html5gum::{DefaultEmitter, Token, Tokenizer};

/// The text under a heading of an HTML page, or before the first, without its markup.
#[derive(Debug, Default)]
pub(super) struct HtmlSection {
    pub(super) title: String,
    pub(super) text: String,
    /// Where each run of the text stands in the page: its begin in the text, its bytes in the page.
    runs: Vec<(usize, Range<usize>)>,
}

/// Elements whose content nobody reads as text.
const SILENT: [&[u8]; 6] = [
    b"script",
    b"style",
    b"noscript",
    b"template",
    b"svg",
    b"nav",
];

/// Elements that stand by themselves.
const BLOCKS: [&[u8]; 28] = [
    b"address",
    b"article",
    b"aside",
    b"blockquote",
    b"body",
    b"dd",
    b"details",
    b"div",
    b"dl",
    b"dt",
    b"fieldset",
    b"figcaption",
    b"figure",
    b"footer",
    b"form",
    b"header",
    b"hr",
    b"li",
    b"main",
    b"ol",
    b"p",
    b"pre",
    b"section",
    b"summary",
    b"table",
    b"tr",
    b"ul",
    b"caption",
];

/// The sections of a page; `title` is the first one's where the page has none.
pub(super) fn sections(page: &str, title: String) -> Vec<HtmlSection> {
    let mut reading = Reading {
        sections: vec![HtmlSection {
            title,
            ..HtmlSection::default()
        }],
        ..Reading::default()
    };
    let mut emitter = DefaultEmitter::<usize>::new_with_span();
    // The text of scripts and styles is not markup.
    emitter.naively_switch_states(true);
    for Ok(token) in Tokenizer::new_with_emitter(page, emitter) {
        match token {
            Token::StartTag(tag) => reading.open(&tag.name, tag.self_closing),
            Token::EndTag(tag) => reading.close(&tag.name),
            Token::String(text) => {
                let span = text.span.start..text.span.end;
                reading.text(&String::from_utf8_lossy(&text.value), span);
            }
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    reading.sections
}

#[derive(Default)]
struct Reading {
    sections: Vec<HtmlSection>,
    /// The silent element that is open, and how often within itself.
    silent: Option<(Vec<u8>, usize)>,
    /// The title that is being read: of the page, or of a section.
    title: Option<String>,
    preformatted: usize,
}

impl Reading {
    fn open(&mut self, name: &[u8], self_closing: bool) {
        match &mut self.silent {
            Some((silent, depth)) => *depth += usize::from(silent == name && !self_closing),
            None if SILENT.contains(&name) && !self_closing => {
                self.silent = Some((name.to_vec(), 1));
            }
            None if name == b"title" => self.title = Some(String::new()),
            None if is_heading(name) => self.title = Some(String::new()),
            None => {
                self.preformatted += usize::from(name == b"pre");
                self.space(name);
            }
        }
    }

    fn close(&mut self, name: &[u8]) {
        if let Some((silent, depth)) = &mut self.silent {
            *depth -= usize::from(silent == name);
            if *depth == 0 {
                self.silent = None;
            }
        } else if name == b"title" {
            let title = self.title.take().unwrap_or_default();
            let title = title.trim();
            if !title.is_empty() && self.sections.len() == 1 {
                self.sections[0].title = title.to_owned();
            }
        } else if is_heading(name) {
            if let Some(title) = self.title.take() {
                self.sections.push(HtmlSection {
                    title: title.trim().to_owned(),
                    ..HtmlSection::default()
                });
            }
        } else {
            self.preformatted = self
                .preformatted
                .saturating_sub(usize::from(name == b"pre"));
            self.space(name);
        }
    }

    /// Adds the white space that an element's begin or end leaves between texts.
    fn space(&mut self, name: &[u8]) {
        if let Some(title) = &mut self.title {
            push_collapsed(title, " ");
        } else if let Some(section) = self.sections.last_mut() {
            let space = match name {
                b"br" => "\n",
                b"td" | b"th" => "\t",
                name if BLOCKS.contains(&name) => "\n",
                _ => return,
            };
            let text = &mut section.text;
            text.truncate(text.trim_end_matches([' ', '\t']).len());
            if !text.is_empty() && !text.ends_with('\n') {
                text.push_str(space);
            }
        }
    }

    fn text(&mut self, text: &str, span: Range<usize>) {
        if self.silent.is_some() {
            return;
        }
        if let Some(title) = &mut self.title {
            push_collapsed(title, text);
        } else if let Some(section) = self.sections.last_mut() {
            let start = section.text.len();
            match self.preformatted {
                0 => push_collapsed(&mut section.text, text),
                _ => section.text.push_str(text),
            }
            if section.text.len() > start {
                section.runs.push((start, span));
            }
        }
    }
}

impl HtmlSection {
    /// The bytes of the page from the begin of a stretch of the text to its end, with the markup between.
    pub(super) fn span(&self, stretch: Range<usize>) -> Range<usize> {
        let run = |at: usize| {
            let after = self.runs.partition_point(|(start, _)| *start <= at);
            self.runs[after.max(1) - 1].1.clone()
        };
        run(stretch.start).start..run(stretch.end.max(1) - 1).end
    }
}

fn is_heading(name: &[u8]) -> bool {
    matches!(name, [b'h', b'1'..=b'6'])
}

/// Adds a text with each run of white space as one space, as browsers show it.
fn push_collapsed(to: &mut String, text: &str) {
    for (i, word) in text.split(|c: char| c.is_ascii_whitespace()).enumerate() {
        if i > 0 && !to.is_empty() && !to.ends_with([' ', '\n', '\t']) {
            to.push(' ');
        }
        to.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(page: &str) -> Vec<(String, String)> {
        let sections = sections(page, "file".to_owned()).into_iter();
        let brief = sections.map(|section| (section.title, section.text.trim().to_owned()));
        brief.filter(|(_, text)| !text.is_empty()).collect()
    }

    fn owned<const N: usize>(expected: [(&str, &str); N]) -> Vec<(String, String)> {
        expected
            .map(|(title, text)| (title.to_owned(), text.to_owned()))
            .to_vec()
    }

    #[test]
    fn text_stands_under_its_heading_without_markup() {
        let page = "<!doctype html><html><head><title>The\n page</title>\
            <style>p { color: red }</style><script>if (a < b) { x('<p>no</p>') }</script></head>\
            <body><nav><a href=/>Home</a><ul><li>no</ul></nav><p>Before  the\nfirst <b>bold</b>word &amp; more.\
            <h2>A <i>heading</i></h2><p>One</p><p>Two<br>lines</p><ul><li>a<li>b</ul>\
            <table><tr><td>x<td>y</tr></table><pre>  kept\n   so</pre><h3>雨</h3>下雨了。<!-- no --></body></html>";
        assert_eq!(
            brief(page),
            owned([
                ("The page", "Before the first boldword & more."),
                ("A heading", "One\nTwo\nlines\na\nb\nx\ty\n  kept\n   so"),
                ("雨", "下雨了。"),
            ])
        );
    }

    #[test]
    fn broken_markup_still_gives_its_text() {
        assert_eq!(brief("plain"), owned([("file", "plain")]));
        assert_eq!(
            brief("<p>a</div></b><h1>T<p>b</h1>c <"),
            owned([("file", "a"), ("T b", "c <")])
        );
        assert_eq!(
            brief("</nav></h1></pre>x</title>y"),
            owned([("file", "xy")])
        );
        assert!(brief("<nav>never closed <p>text").is_empty());
    }

    #[test]
    fn a_stretch_of_text_is_found_in_its_page() {
        let page = "<p>One <b>two</b> three</p>\n<p>f&ouml;r 雨 five</p>";
        let sections = sections(page, String::new());
        let section = &sections[0];
        let bytes = |part: &str| {
            let start = section.text.find(part).unwrap();
            &page[section.span(start..start + part.len())]
        };
        assert_eq!(bytes("two"), "two");
        assert_eq!(bytes("One two"), "One <b>two");
        assert!(bytes("雨").contains("雨") && !bytes("雨").contains("three"));
        assert!(bytes("three\nför").starts_with(" three</p>"));
    }
}
