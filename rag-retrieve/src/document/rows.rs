use std::{borrow::Cow, collections::BTreeMap};

use rag_core::Value;
use serde::{Deserialize, de::Error as _};
use serde_json::Value as Json;

use crate::{
    document::error::DocumentError,
    error::{Error, Result},
};

/// A document that is a line of a file.
pub(super) struct Row {
    pub(super) id: Option<String>,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) metadata: BTreeMap<String, Value>,
}

/// How the lines of one file are read, from the first to the last.
pub(super) enum RowFormat {
    JsonLines,
    /// Its columns, once the header has been read.
    Tsv(Option<Columns>),
}

impl RowFormat {
    /// The row that `text` holds, line `line` of `file`; `None` if it is a header.
    pub(super) fn parse(&mut self, text: &str, file: &str, line: usize) -> Result<Option<Row>> {
        match self {
            Self::JsonLines => match serde_json::from_str(text).and_then(Row::of) {
                Ok(row) => Ok(Some(row)),
                Err(source) => Err(DocumentError::JsonLine {
                    file: file.to_owned(),
                    line,
                    source,
                }
                .into()),
            },
            Self::Tsv(columns) => tsv_row(text, columns).map_err(|(expected, found)| {
                Error::Document(DocumentError::TableLine {
                    file: file.to_owned(),
                    line,
                    expected,
                    found,
                })
            }),
        }
    }
}

#[derive(Deserialize)]
struct JsonRow {
    #[serde(alias = "_id")]
    id: Option<JsonId>,
    title: Option<String>,
    text: Option<String>,
    contents: Option<String>,
    metadata: Option<BTreeMap<String, Json>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsonId {
    Text(String),
    Number(serde_json::Number),
}

impl Row {
    fn of(row: JsonRow) -> serde_json::Result<Self> {
        let text = row.text.or(row.contents);
        let metadata = row.metadata.unwrap_or_default().into_iter();
        Ok(Self {
            metadata: metadata
                .filter_map(|(name, value)| {
                    let known = match value {
                        Json::Bool(flag) => Value::Flag(flag),
                        Json::String(text) => Value::Text(text),
                        Json::Number(number) => Value::Number(number.as_f64()?),
                        Json::Null | Json::Array(_) | Json::Object(_) => return None,
                    };
                    Some((name, known))
                })
                .collect(),
            id: row.id.map(|id| match id {
                JsonId::Text(id) => id,
                JsonId::Number(id) => id.to_string(),
            }),
            title: row.title.unwrap_or_default(),
            text: text.ok_or_else(|| {
                serde_json::Error::custom("neither `text` nor `contents` is a string")
            })?,
        })
    }
}

pub(super) struct Columns {
    id: Option<usize>,
    title: Option<usize>,
    text: usize,
    /// The other columns, by name.
    metadata: Vec<(String, usize)>,
    pub(super) count: usize,
}

impl Columns {
    pub(super) fn of<'a>(header: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        let column = |name| header.clone().position(|field| field == name);
        let other = |(_, name): &(usize, &str)| !["", "id", "title", "text"].contains(name);
        Some(Self {
            id: column("id"),
            title: column("title"),
            text: column("text")?,
            metadata: (header.clone().enumerate().filter(other))
                .map(|(column, name)| (name.to_owned(), column))
                .collect(),
            count: header.count(),
        })
    }

    /// The row of which `field` gives the fields.
    pub(super) fn row(&self, mut field: impl FnMut(usize) -> String) -> Row {
        Row {
            id: self.id.map(&mut field),
            title: self.title.map(&mut field).unwrap_or_default(),
            text: field(self.text),
            metadata: (self.metadata.iter())
                .map(|(name, column)| (name.clone(), field(*column)))
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name, Value::Text(value)))
                .collect(),
        }
    }
}

/// The row, or what was expected and what was found.
fn tsv_row(
    line: &str,
    columns: &mut Option<Columns>,
) -> std::result::Result<Option<Row>, (String, String)> {
    let mut fields = fields(line).ok_or_else(|| {
        let expected = "every quoted field closed on its line";
        let found = "a quotation mark that stays open";
        (expected.to_owned(), found.to_owned())
    })?;
    let Some(columns) = columns else {
        let header = Columns::of(fields.iter().map(Cow::as_ref));
        *columns = Some(header.ok_or_else(|| {
            let expected = "a header parted by tabs: id, text, title";
            (expected.to_owned(), fields.join(", "))
        })?);
        return Ok(None);
    };
    if fields.len() != columns.count {
        let expected = format!("{} fields parted by tabs", columns.count);
        return Err((expected, fields.len().to_string()));
    }
    let row = columns.row(|column| std::mem::take(&mut fields[column]).into_owned());
    Ok(Some(row))
}

/// Fields of a line as Python's `csv` reads them, which wrote DPR's file: quoted where they begin
/// with `"`, with `""` for a quotation mark inside. `None` where a quoted field is not closed, which
/// would swallow the lines that follow.
fn fields(line: &str) -> Option<Vec<Cow<'_, str>>> {
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(field) = rest {
        let mut tail = field;
        let mut unquoted = String::new();
        if let Some(quoted) = field.strip_prefix('"') {
            tail = quoted;
            loop {
                let (content, after) = tail.split_once('"')?;
                unquoted.push_str(content);
                tail = after;
                let Some(after) = tail.strip_prefix('"') else {
                    break;
                };
                unquoted.push('"');
                tail = after;
            }
        }
        let (content, next) = match tail.split_once('\t') {
            Some((content, next)) => (content, Some(next)),
            None => (tail, None),
        };
        fields.push(if field.starts_with('"') {
            Cow::Owned(unquoted + content)
        } else {
            Cow::Borrowed(content)
        });
        rest = next;
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_pythons_csv() {
        let cases: [(&str, &[&str]); 7] = [
            ("1\ta b\tT", &["1", "a b", "T"]),
            ("\"a \"\"b\"\"\"\t\"\"\"c\"\"\"", &["a \"b\"", "\"c\""]),
            ("\"a\tb\"\t", &["a\tb", ""]),
            ("a \"b\" c\td\"", &["a \"b\" c", "d\""]),
            ("\"Weird Al\" Yankovic\t\"\"", &["Weird Al Yankovic", ""]),
            ("", &[""]),
            ("\t雨", &["", "雨"]),
        ];
        for (line, expected) in cases {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
        for open in ["\"", "a\t\"b", "\"a\"\""] {
            assert!(fields(open).is_none(), "{open}");
        }
    }

    #[test]
    fn what_else_is_known_becomes_metadata() {
        let metadata = |row: Row| row.metadata.into_iter().collect::<Vec<_>>();
        let known = |name: &str, value: Value| (name.to_owned(), value);
        let json = r#"{"text": "x", "metadata": {"year": 1999, "lang": "zh", "draft": true, "url": null, "tags": ["a"]}}"#;
        let row = RowFormat::JsonLines.parse(json, "f", 1).unwrap().unwrap();
        let expected = [
            known("draft", true.into()),
            known("lang", "zh".into()),
            known("year", 1999.into()),
        ];
        assert_eq!(metadata(row), expected);
        let mut tsv = RowFormat::Tsv(None);
        tsv.parse("year\ttext\tlang", "f", 1).unwrap();
        let row = tsv.parse("1999\tx\t", "f", 2).unwrap().unwrap();
        assert_eq!(metadata(row), [known("year", "1999".into())]);
    }

    #[test]
    fn columns_are_found_by_name() {
        let mut tsv = RowFormat::Tsv(None);
        assert!(tsv.parse("title\ttext", "f", 1).unwrap().is_none());
        let row = tsv.parse("T\tx", "f", 2).unwrap().unwrap();
        assert_eq!(
            (row.id, row.title.as_str(), row.text.as_str()),
            (None, "T", "x")
        );
    }
}
