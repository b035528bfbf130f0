use std::ops::Range;

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

/// A stretch of a text under one title.
pub(super) struct Section {
    pub(super) title: String,
    pub(super) span: Range<usize>,
}

/// The texts under each heading of a Markdown text, and before the first.
pub(super) fn sections(text: &str, title: String) -> Vec<Section> {
    let offset = front_matter(text);
    let mut sections = vec![Section {
        title,
        span: offset..text.len(),
    }];
    let mut depth = 0;
    let mut heading = None;
    for (event, Range { start, end }) in Parser::new(&text[offset..]).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                if depth == 0 && matches!(tag, Tag::Heading { .. }) {
                    if let Some(section) = sections.last_mut() {
                        section.span.end = offset + start;
                    }
                    heading = Some(String::new());
                }
                depth += 1;
            }
            Event::End(tag) => {
                depth -= 1;
                if depth == 0
                    && matches!(tag, TagEnd::Heading(_))
                    && let Some(title) = heading.take()
                {
                    sections.push(Section {
                        title: title.trim().to_owned(),
                        span: offset + end..text.len(),
                    });
                }
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(title) = &mut heading {
                    title.push_str(&text);
                }
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some(title) = &mut heading {
                    title.push(' ');
                }
            }
            _ => {}
        }
    }
    sections
}

/// Length of the YAML (`---`) or TOML (`+++`) block that a Markdown text may begin with.
fn front_matter(text: &str) -> usize {
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next() else { return 0 };
    let fence = first.trim_end();
    if !matches!(fence, "---" | "+++") {
        return 0;
    }
    let mut end = first.len();
    for (number, line) in lines.enumerate() {
        end += line.len();
        match line.trim_end() {
            "" if number == 0 => return 0, // a rule, not a block
            line if line == fence => return end,
            _ => {}
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(text: &str) -> Vec<(String, &str)> {
        let sections = sections(text, "file".to_owned()).into_iter();
        let brief = sections.map(|section| (section.title, text[section.span].trim()));
        brief.filter(|(_, body)| !body.is_empty()).collect()
    }

    #[test]
    fn sections_start_at_headings_and_nowhere_else() {
        let body = "```sh\n# a comment\n```\n\n> # quoted\n\n    # indented";
        let text = format!(
            "before\n\nSet\next\n===\n\n{body}\n\n## Empty ##\n### A *b* `c` [d](e)\n#hashtag\n"
        );
        assert_eq!(
            brief(&text),
            [
                ("file".to_owned(), "before"),
                ("Set ext".to_owned(), body),
                ("A b c d".to_owned(), "#hashtag"),
            ]
        );
    }

    #[test]
    fn front_matter_is_left_out() {
        let texts = [
            "---\ntitle: x\n# comment\n---\nbody",
            "+++\r\ntitle = 1\r\n+++\r\nbody",
        ];
        for text in texts {
            assert_eq!(brief(text), [("file".to_owned(), "body")]);
        }
        for text in ["---\n\nkept\n\n---", "---\nnever closed", "+++", ""] {
            assert_eq!(front_matter(text), 0);
        }
    }
}
