//! Documents: files of text in, passages that know their place out.

mod markdown;
mod rows;

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{MAIN_SEPARATOR_STR, Path, PathBuf},
};

use rag_core::{Passage, Source};
use rayon::prelude::*;

use crate::{
    chunk::Chunking,
    error::{Error, Result},
};
use markdown::{Section, sections};
use rows::RowFormat;

const EXTENSIONS: &str = ".txt, .md, .markdown, .jsonl, .tsv";

/// The passages of a file or folder, and what was not read.
///
/// Displays as `312 passages from 14 files; skipped 1: a.pdf (…)`.
#[derive(Clone, Debug)]
pub struct Documents {
    /// In the order of file names, then as they stand in the file.
    pub passages: Vec<Passage>,
    /// Files that gave at least one passage.
    pub files: usize,
    /// Files, or rows of files, that gave none, in the order of file names.
    pub skipped: Vec<Skipped>,
}

/// A file that was left out, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The path as [`Source::file`] would have it.
    pub file: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why a file was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its extension is none of those that are read.
    Unsupported,
    /// It is not UTF-8 text.
    NotUtf8,
    /// It holds nothing but white space, headings or a table's header.
    NoText,
    /// It was read, but for rows whose text is empty.
    EmptyRows {
        /// How many.
        rows: usize,
        /// The first of them, counted from 1.
        first_line: usize,
    },
    /// It links to a folder; links are followed to files only.
    FolderLink,
}

impl Documents {
    /// Reads a file, or all files of a folder and the folders in it, into passages.
    ///
    /// | extension | documents | title |
    /// |---|---|---|
    /// | `.txt` | the file | the file's name without extension |
    /// | `.md`, `.markdown` | a section under a heading, without front matter | the heading, else as for `.txt` |
    /// | `.jsonl` | a line `{"id"?, "title"?, "text" or "contents"}` | the field |
    /// | `.tsv` | a row under a header with `text` and, if wanted, `id` and `title`, quoted as DPR's psgs_w100.tsv is | the column |
    ///
    /// A document longer than a chunk gives several passages. Files are UTF-8, with or without a
    /// byte order mark; names that start with a dot are passed over in silence.
    ///
    /// [`Source::bytes`] of a text or Markdown passage is exactly where its text stands in the file;
    /// in `.jsonl` and `.tsv`, where text is escaped, it is the line, without its line break.
    ///
    /// Ids are `folder/file.md#0`, relative to `path` and counted in each file; a row's own id goes
    /// before that. The chunks of a row of several are `id#0`, `id#1`, …
    ///
    /// # Errors
    /// [`Error::Core`] for what cannot be opened, [`Error::JsonLine`] and [`Error::TsvLine`] for
    /// malformed rows, [`Error::DuplicateId`], [`Error::EmptyCorpus`] if there is no passage at
    /// all, and those of [`Chunking::split`].
    pub fn read(path: impl AsRef<Path>, chunking: &Chunking) -> Result<Self> {
        let path = path.as_ref();
        let Found { files, mut skipped } = Found::under(path)?;
        let contents: Vec<Result<Content>> =
            files.par_iter().map(|file| file.read(chunking)).collect();

        let mut passages = Vec::new();
        let mut read = 0;
        for (file, content) in files.iter().zip(contents) {
            let content = content?;
            read += usize::from(!content.passages.is_empty());
            passages.extend(content.passages);
            skipped.extend(content.skipped.map(|reason| Skipped {
                file: file.name.clone(),
                reason,
            }));
        }
        skipped.sort_by(|a, b| a.file.cmp(&b.file));
        if passages.is_empty() {
            return Err(Error::EmptyCorpus {
                path: path.to_owned(),
                expected: EXTENSIONS,
                skipped,
            });
        }
        distinct_ids(&passages)?;
        Ok(Self {
            passages,
            files: read,
            skipped,
        })
    }
}

impl fmt::Display for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: usize, what| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let passages = count(self.passages.len(), "passage");
        write!(f, "{passages} from {}", count(self.files, "file"))?;
        if !self.skipped.is_empty() {
            let skipped = listed(&self.skipped);
            write!(f, "; skipped {}: {skipped}", self.skipped.len())?;
        }
        Ok(())
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.file, self.reason)
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => write!(f, "not one of {EXTENSIONS}"),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::NoText => f.write_str("no text in it"),
            Self::EmptyRows { rows, first_line } => {
                write!(f, "{rows} without text, the first in line {first_line}")
            }
            Self::FolderLink => f.write_str("a link to a folder"),
        }
    }
}

/// The first few of what was skipped.
pub(crate) fn listed(skipped: &[Skipped]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = skipped.iter().take(SHOWN).map(Skipped::to_string).collect();
    let more = if skipped.len() > SHOWN { ", …" } else { "" };
    shown.join(", ") + more
}

/// Refuses passages that share an id.
pub(crate) fn distinct_ids(passages: &[Passage]) -> Result<()> {
    let place = |position: usize| match &passages[position].source {
        Some(Source { file, bytes }) => format!("{file}, byte {}", bytes.start),
        None => format!("passage {position}"),
    };
    let mut positions = HashMap::with_capacity(passages.len());
    for (position, passage) in passages.iter().enumerate() {
        if let Some(first) = positions.insert(passage.id.as_str(), position) {
            return Err(Error::DuplicateId {
                id: passage.id.clone(),
                first: place(first),
                second: place(position),
            });
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Format {
    Text,
    Markdown,
    JsonLines,
    Tsv,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "txt" => Some(Self::Text),
            "md" | "markdown" => Some(Self::Markdown),
            "jsonl" => Some(Self::JsonLines),
            "tsv" => Some(Self::Tsv),
            _ => None,
        }
    }
}

struct DocumentFile {
    path: PathBuf,
    format: Format,
    /// As [`Source::file`] has it.
    name: String,
    /// Within the folder that is read.
    relative: String,
}

struct Content {
    passages: Vec<Passage>,
    skipped: Option<SkipReason>,
}

#[derive(Default)]
struct Found {
    files: Vec<DocumentFile>,
    skipped: Vec<Skipped>,
}

impl Found {
    fn under(root: &Path) -> Result<Self> {
        let mut found = Self::default();
        if !fs::metadata(root)
            .map_err(rag_core::Error::io(root))?
            .is_dir()
        {
            let relative = root.file_name().unwrap_or(root.as_os_str());
            found.take(root.to_owned(), relative.to_string_lossy().into_owned());
            return Ok(found);
        }
        let mut folders = vec![(root.to_owned(), String::new())];
        while let Some((folder, within)) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(rag_core::Error::io(&folder))? {
                let entry = entry.map_err(rag_core::Error::io(&folder))?;
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                let kind = entry.file_type().map_err(rag_core::Error::io(&path))?;
                if name.starts_with('.') {
                    continue;
                } else if kind.is_dir() {
                    folders.push((path, format!("{within}{name}/")));
                } else if kind.is_symlink() && path.is_dir() {
                    found.skip(&path, SkipReason::FolderLink);
                } else {
                    found.take(path, within.clone() + &name);
                }
            }
        }
        found.files.sort_by(|a, b| a.relative.cmp(&b.relative));
        Ok(found)
    }

    fn take(&mut self, path: PathBuf, relative: String) {
        match Format::of(&path) {
            Some(format) => self.files.push(DocumentFile {
                name: slashed(&path),
                path,
                format,
                relative,
            }),
            None => self.skip(&path, SkipReason::Unsupported),
        }
    }

    fn skip(&mut self, path: &Path, reason: SkipReason) {
        self.skipped.push(Skipped {
            file: slashed(path),
            reason,
        });
    }
}

fn slashed(path: &Path) -> String {
    path.to_string_lossy().replace(MAIN_SEPARATOR_STR, "/")
}

impl DocumentFile {
    fn read(&self, chunking: &Chunking) -> Result<Content> {
        let mut content = match self.format {
            Format::Text => self.read_text(chunking, |text, title| {
                let whole = 0..text.len();
                vec![Section { title, span: whole }]
            })?,
            Format::Markdown => self.read_text(chunking, sections)?,
            Format::JsonLines => self.read_rows(chunking, RowFormat::JsonLines)?,
            Format::Tsv => self.read_rows(chunking, RowFormat::Tsv(None))?,
        };
        if content.passages.is_empty() && content.skipped.is_none() {
            content.skipped = Some(SkipReason::NoText);
        }
        Ok(content)
    }

    fn read_text(
        &self,
        chunking: &Chunking,
        sections: impl FnOnce(&str, String) -> Vec<Section>,
    ) -> Result<Content> {
        let bytes = fs::read(&self.path).map_err(rag_core::Error::io(&self.path))?;
        let Ok(file) = str::from_utf8(&bytes) else {
            return Ok(Content::not_utf8());
        };
        let text = without_mark(file);
        let mark = file.len() - text.len();
        let stem = self.path.file_stem().unwrap_or_default();
        let mut passages = Vec::new();
        for section in sections(text, stem.to_string_lossy().into_owned()) {
            let start = mark + section.span.start;
            let body = &text[section.span];
            for chunk in chunking.split(body)? {
                passages.push(Passage {
                    id: format!("{}#{}", self.relative, passages.len()),
                    title: section.title.clone(),
                    text: body[chunk.clone()].to_owned(),
                    source: Some(Source {
                        file: self.name.clone(),
                        bytes: start + chunk.start..start + chunk.end,
                    }),
                });
            }
        }
        Ok(Content {
            passages,
            skipped: None,
        })
    }

    fn read_rows(&self, chunking: &Chunking, mut format: RowFormat) -> Result<Content> {
        let file = File::open(&self.path).map_err(rag_core::Error::io(&self.path))?;
        let mut reader = BufReader::new(file);
        let mut passages = Vec::new();
        let mut rows = 0;
        let mut without_text = Vec::new();
        let mut line = Vec::new();
        let mut end = 0;
        for number in 1.. {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            if read.map_err(rag_core::Error::io(&self.path))? == 0 {
                break;
            }
            end += line.len();
            let Ok(mut text) = str::from_utf8(&line) else {
                return Ok(Content::not_utf8());
            };
            if number == 1 {
                text = without_mark(text);
            }
            let start = end - text.len();
            let text = text.trim_end_matches(['\r', '\n']);
            if text.trim().is_empty() {
                continue;
            }
            let Some(row) = format.parse(text, &self.name, number)? else {
                continue;
            };
            let ordinal = rows;
            rows += 1;
            let id = row
                .id
                .unwrap_or_else(|| format!("{}#{ordinal}", self.relative));
            let chunks = chunking.split(&row.text)?;
            if chunks.is_empty() {
                without_text.push(number);
            }
            for (ordinal, chunk) in chunks.iter().enumerate() {
                passages.push(Passage {
                    id: match chunks.len() {
                        1 => id.clone(),
                        _ => format!("{id}#{ordinal}"),
                    },
                    title: row.title.clone(),
                    text: row.text[chunk.clone()].to_owned(),
                    source: Some(Source {
                        file: self.name.clone(),
                        bytes: start..start + text.len(),
                    }),
                });
            }
        }
        let skipped = without_text
            .first()
            .map(|&first_line| SkipReason::EmptyRows {
                rows: without_text.len(),
                first_line,
            });
        Ok(Content { passages, skipped })
    }
}

impl Content {
    fn not_utf8() -> Self {
        Self {
            passages: Vec::new(),
            skipped: Some(SkipReason::NotUtf8),
        }
    }
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn read(files: &[(&str, &[u8])], words: usize) -> Result<Documents> {
        Documents::read(corpus(files).path(), &Chunking::words(words))
    }

    fn brief(documents: &Documents) -> Vec<(&str, &str, &str)> {
        let passages = documents.passages.iter();
        passages
            .map(|p| (p.id.as_str(), p.title.as_str(), p.text.as_str()))
            .collect()
    }

    #[test]
    fn text_is_a_verbatim_slice_of_its_file() {
        let files: &[(&str, &[u8])] = &[
            ("b/雨.md", "\u{feff}---\r\ntitle: x\r\n---\r\nA\r\n\r\n# 天 `气`\r\n下雨了，路很滑。\r\n\r\n晴\r\n".as_bytes()),
            ("a.txt", "\u{feff}one two\r\nthree  four five\r\n".as_bytes()),
        ];
        let folder = corpus(files);
        let documents = Documents::read(folder.path(), &Chunking::words(3)).unwrap();
        assert_eq!(
            brief(&documents),
            [
                ("a.txt#0", "a", "one two\r\nthree"),
                ("a.txt#1", "a", "four five"),
                ("b/雨.md#0", "雨", "A"),
                ("b/雨.md#1", "天 气", "下雨了，"),
                ("b/雨.md#2", "天 气", "路很滑。"),
                ("b/雨.md#3", "天 气", "晴"),
            ]
        );
        for passage in &documents.passages {
            let source = passage.source.as_ref().unwrap();
            let bytes = fs::read(&source.file).unwrap();
            assert_eq!(&bytes[source.bytes.clone()], passage.text.as_bytes());
        }
        assert_eq!(documents.to_string(), "6 passages from 2 files");
    }

    #[test]
    fn rows_are_documents() {
        let json = "\u{feff}{\"id\": 7, \"title\": \"T\", \"text\": \"a\\nb c\"}\r\n\r\n{\"contents\": \"雨\"}\n{\"_id\": \"x\", \"text\": \" \"}\n";
        let tsv =
            b"id\ttext\ttitle\n1\t\"He said \"\"no\tway\"\".\"\t\"\"\"Weird\"\" Al\"\n2\tplain\tP";
        let folder = corpus(&[("a.jsonl", json.as_bytes()), ("b.TSV", tsv)]);
        let documents = Documents::read(folder.path(), &Chunking::words(2)).unwrap();
        assert_eq!(
            brief(&documents),
            [
                ("7#0", "T", "a\nb"),
                ("7#1", "T", "c"),
                ("a.jsonl#1", "", "雨"),
                ("1#0", "\"Weird\" Al", "He said"),
                ("1#1", "\"Weird\" Al", "\"no\tway\"."),
                ("2", "P", "plain"),
            ]
        );
        let line = |position: usize| {
            let source = documents.passages[position].source.clone().unwrap();
            let bytes = fs::read(source.file).unwrap();
            String::from_utf8(bytes[source.bytes].to_vec()).unwrap()
        };
        assert_eq!(line(1), json.lines().next().unwrap()[3..]);
        assert_eq!(line(2), "{\"contents\": \"雨\"}");
        assert_eq!(line(5), "2\tplain\tP");
        let reason = SkipReason::EmptyRows {
            rows: 1,
            first_line: 4,
        };
        assert_eq!(documents.skipped[0].reason, reason);
    }

    #[test]
    fn what_is_not_read_is_named() {
        let files: &[(&str, &[u8])] = &[
            ("a.txt", b"text"),
            ("b.pdf", b"%PDF"),
            ("c.txt", b"caf\xe9"),
            ("d.jsonl", b"{\"text\": \"kept back\"}\n\xff\n"),
            ("e.md", b"# Only a heading\n"),
            (".hidden.txt", b"hidden"),
            (".git/config.txt", b"hidden"),
        ];
        let documents = read(files, 100).unwrap();
        let reasons: Vec<_> = documents.skipped.iter().map(|s| s.reason.clone()).collect();
        use SkipReason::{NoText, NotUtf8, Unsupported};
        assert_eq!(reasons, [Unsupported, NotUtf8, NotUtf8, NoText]);
        let report = documents.to_string();
        assert!(
            report.starts_with("1 passage from 1 file; skipped 4: "),
            "{report}"
        );
        assert!(report.contains("c.txt (not UTF-8)"), "{report}");
    }

    #[cfg(unix)]
    #[test]
    fn links_to_folders_are_not_followed() {
        let folder = corpus(&[("a.txt", b"text")]);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        let documents = Documents::read(folder.path(), &Chunking::words(9)).unwrap();
        assert_eq!(documents.passages.len(), 1);
        assert_eq!(documents.skipped[0].reason, SkipReason::FolderLink);
    }

    #[test]
    fn malformed_rows_are_found() {
        let bad_json: [&[u8]; 4] = [b"{}\n{", b"{\"text\": 1}", b"[]", b"{\"title\": \"T\"}"];
        for json in bad_json {
            let error = read(&[("a.jsonl", json)], 9).unwrap_err();
            assert!(matches!(error, Error::JsonLine { line: 1, .. }), "{error}");
        }
        let bad_tsv: [(&[u8], usize); 3] = [
            (b"a\tb\n", 1),
            (b"id\ttext\n1\ta\n2\n", 3),
            (b"id\ttext\n1\t\"open\n2\tb\n", 2),
        ];
        for (tsv, expected) in bad_tsv {
            let error = read(&[("a.tsv", tsv)], 9).unwrap_err();
            assert!(
                matches!(error, Error::TsvLine { line, .. } if line == expected),
                "{error}"
            );
        }
    }

    #[test]
    fn duplicate_ids_and_empty_folders_are_refused() {
        let row = b"{\"id\": \"x\", \"text\": \"a\"}\n";
        let error = read(&[("a.jsonl", row), ("b.jsonl", row)], 9).unwrap_err();
        assert!(
            matches!(&error, Error::DuplicateId { id, .. } if id == "x"),
            "{error}"
        );
        let error = read(&[("a.pdf", b"%PDF")], 9).unwrap_err().to_string();
        assert!(
            error.contains(".jsonl") && error.contains("a.pdf"),
            "{error}"
        );
        let missing = Documents::read("/no/such/folder", &Chunking::words(9));
        assert!(matches!(
            missing,
            Err(Error::Core(rag_core::Error::Io { .. }))
        ));
    }

    #[test]
    fn one_file_is_read_by_itself() {
        let folder = corpus(&[("sub/a.txt", b"text")]);
        let documents =
            Documents::read(folder.path().join("sub/a.txt"), &Chunking::words(9)).unwrap();
        assert_eq!(documents.passages[0].id, "a.txt#0");
    }
}
