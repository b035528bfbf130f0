//! Documents: files of text in, passages that know their place out.

pub(crate) mod error;
mod file;
mod html;
mod markdown;
#[cfg(feature = "pdf")]
mod pdf;
mod rows;
mod skipped;
mod walk;

use std::{collections::HashMap, fmt, path::Path};

use rag_core::{Passage, Source};
use rayon::prelude::*;

pub use self::{
    error::DocumentError,
    skipped::{SkipReason, Skipped},
};
use self::{
    file::Content,
    skipped::{EXTENSIONS, listed},
    walk::Found,
};
use crate::{chunk::Chunking, error::Result};

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

impl Documents {
    /// Reads a file, or all files of a folder and the folders in it, into passages.
    ///
    /// | extension | documents | title |
    /// |---|---|---|
    /// | `.txt` | the file | the file's name without extension |
    /// | `.md`, `.markdown` | a section under a heading, without front matter | the heading, else as for `.txt` |
    /// | `.html`, `.htm` | what stands under a heading, without markup, scripts and navigation | the heading, the page's title, else as for `.txt` |
    /// | `.pdf` (feature `pdf`) | a page | as for `.txt` |
    /// | `.jsonl` | a line `{"id"?, "title"?, "text" or "contents", "metadata"?}` | the field |
    /// | `.csv` | a row under a header with `text` and, if wanted, `id` and `title` | the column |
    /// | `.tsv` | the same, on one line each, quoted as DPR's psgs_w100.tsv is | the column |
    ///
    /// A line's `"metadata": {…}` and a row's other columns, unless empty, are the passage's
    /// [metadata](Passage::metadata): texts, numbers, true and false from JSON, whose lists and objects are left
    /// out; from a table texts, also where they look like numbers.
    ///
    /// Each may be compressed, with `.gz` or `.zst` behind. A document longer than a chunk gives several
    /// passages. Files are UTF-8, with or without a byte order mark; names that start with a dot are
    /// passed over in silence.
    ///
    /// [`Source::bytes`] of a text or Markdown passage is exactly where its text stands in the file;
    /// of HTML it is the same with the markup between; in `.jsonl`, `.csv` and `.tsv`, where text is
    /// escaped, it is the row, without its line break; of a PDF it is the file, and [`Source::page`] says
    /// more.
    ///
    /// Ids are `folder/file.md#0`, relative to `path` and counted in each file; a row's own id goes
    /// before that. The chunks of a row of several are `id#0`, `id#1`, …
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core) for what cannot be opened, [`DocumentError::JsonLine`] and [`DocumentError::TableLine`] for
    /// malformed rows, [`DocumentError::DuplicateId`], [`DocumentError::EmptyCorpus`] if there is no passage at
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
            return Err(DocumentError::EmptyCorpus {
                path: path.to_owned(),
                expected: EXTENSIONS,
                skipped,
            }
            .into());
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

/// Refuses passages that share an id.
pub(crate) fn distinct_ids(passages: &[Passage]) -> Result<()> {
    let place = |position: usize| match &passages[position].source {
        Some(Source { file, bytes, .. }) => format!("{file}, byte {}", bytes.start),
        None => format!("passage {position}"),
    };
    let mut positions = HashMap::with_capacity(passages.len());
    for (position, passage) in passages.iter().enumerate() {
        if let Some(first) = positions.insert(passage.id.as_str(), position) {
            return Err(DocumentError::DuplicateId {
                id: passage.id.clone(),
                first: place(first),
                second: place(position),
            }
            .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read};

    use super::*;
    use crate::error::Error;

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
            ("b.docx", b"PK"),
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

    #[test]
    fn html_is_cited_where_it_stands() {
        let page = "\u{feff}<title>Weather</title><p>One <b>two</b> three</p><h2>雨</h2><p>下雨了，路很滑。</p>";
        let folder = corpus(&[("a.html", page.as_bytes())]);
        let documents = Documents::read(folder.path(), &Chunking::words(2)).unwrap();
        assert_eq!(
            brief(&documents)[..3],
            [
                ("a.html#0", "Weather", "One two"),
                ("a.html#1", "Weather", "three"),
                ("a.html#2", "雨", "下雨"),
            ]
        );
        let source = documents.passages[0].source.clone().unwrap();
        assert_eq!(&page[source.bytes], "One <b>two");
    }

    #[test]
    fn rows_of_csv_may_have_line_breaks() {
        let csv = "\u{feff}id,title,text\r\n1,T,\"one, \"\"two\"\"\nthree\"\r\n2,,plain\n3,x, \n";
        let folder = corpus(&[("a.csv", csv.as_bytes())]);
        let documents = Documents::read(folder.path(), &Chunking::words(9)).unwrap();
        assert_eq!(
            brief(&documents),
            [("1", "T", "one, \"two\"\nthree"), ("2", "", "plain")]
        );
        let rows: Vec<_> = (documents.passages.iter())
            .map(|passage| &csv[passage.source.clone().unwrap().bytes])
            .collect();
        assert_eq!(rows, ["1,T,\"one, \"\"two\"\"\nthree\"", "2,,plain"]);
        let empty = SkipReason::EmptyRows {
            rows: 1,
            first_line: 5,
        };
        assert_eq!(documents.skipped[0].reason, empty);
        for (csv, expected) in [("a,b\n", 1), ("id,text\n1,a\n2\n", 3)] {
            let error = read(&[("a.csv", csv.as_bytes())], 9).unwrap_err();
            assert!(
                matches!(error, Error::Document(DocumentError::TableLine { line, .. }) if line == expected),
                "{error}"
            );
        }
    }

    #[test]
    fn compressed_files_are_read_and_damaged_ones_named() {
        let gzip = |bytes: &[u8]| {
            let mut gz = flate2::read::GzEncoder::new(bytes, flate2::Compression::default());
            let mut packed = Vec::new();
            gz.read_to_end(&mut packed).unwrap();
            packed
        };
        let zst = |bytes: &[u8]| zstd::encode_all(bytes, 0).unwrap();
        // Two members, as `cat a.gz b.gz` makes them.
        let twice = [
            gzip(b"{\"text\": \"one\"}\n"),
            gzip(b"{\"text\": \"two\"}\n"),
        ]
        .concat();
        let whole = zst("雨 rain".as_bytes());
        let files: &[(&str, &[u8])] = &[
            ("a.jsonl.gz", &twice),
            ("b.txt.zst", &whole),
            ("c.md.gz", &gzip(b"cut off")[..12]),
            ("d.txt.zst", &whole[..whole.len() - 3]),
            ("e.txt.gz", b"no gzip"),
            ("f.tar.gz", &gzip(b"unknown")),
        ];
        let documents = read(files, 9).unwrap();
        assert_eq!(
            brief(&documents),
            [
                ("a.jsonl.gz#0", "", "one"),
                ("a.jsonl.gz#1", "", "two"),
                ("b.txt.zst#0", "b", "雨 rain"),
            ]
        );
        let malformed = |skipped: &Skipped| matches!(skipped.reason, SkipReason::Malformed { .. });
        let damaged: Vec<_> = documents.skipped.iter().filter(|s| malformed(s)).collect();
        assert_eq!(damaged.len(), 3, "{:?}", documents.skipped);
        assert_eq!(documents.skipped[3].reason, SkipReason::Unsupported);
    }

    #[cfg(not(feature = "pdf"))]
    #[test]
    fn a_pdf_asks_for_its_feature() {
        let documents = read(&[("a.pdf", b"%PDF"), ("b.txt", b"text")], 9).unwrap();
        let report = documents.to_string();
        assert!(report.contains("the feature `pdf`"), "{report}");
    }

    #[cfg(feature = "pdf")]
    #[test]
    fn pages_of_a_pdf_are_documents() {
        let whole = pdf(&["The first page.", "And the second page."]);
        let cut = &whole[..whole.len() / 2];
        let files: &[(&str, &[u8])] = &[
            ("a.pdf", &whole),
            ("b.pdf", cut),
            ("c.pdf", b"no PDF at all"),
            ("d.pdf", b""),
        ];
        let documents = read(files, 99).unwrap();
        let pages = [
            ("a.pdf#0", "The first page."),
            ("a.pdf#1", "And the second page."),
        ];
        for (passage, (id, text)) in documents.passages.iter().zip(pages) {
            assert_eq!((passage.id.as_str(), passage.text.trim()), (id, text));
        }
        let page = |at: usize| documents.passages[at].source.clone().unwrap().page;
        assert_eq!((page(0), page(1)), (Some(1), Some(2)));
        assert_eq!(documents.files, 1);
        assert_eq!(documents.skipped.len(), 3, "{documents}");
    }

    /// A PDF of pages with a line each.
    #[cfg(feature = "pdf")]
    fn pdf(lines: &[&str]) -> Vec<u8> {
        use pdf_extract::{Document, Object, Stream, dictionary};
        let mut document = Document::with_version("1.5");
        let pages = document.new_object_id();
        let font = document.add_object(dictionary! {
            "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Helvetica", "Encoding" => "WinAnsiEncoding",
        });
        let kids: Vec<Object> = (lines.iter())
            .map(|line| {
                let content = format!("BT /F1 12 Tf 50 700 Td ({line}) Tj ET");
                let content =
                    document.add_object(Stream::new(dictionary! {}, content.into_bytes()));
                let page = document.add_object(dictionary! {
                    "Type" => "Page", "Parent" => pages, "Contents" => content,
                    "MediaBox" => vec![0.into(), 0.into(), 595.into(), 842.into()],
                    "Resources" => dictionary! { "Font" => dictionary! { "F1" => font } },
                });
                page.into()
            })
            .collect();
        let count = kids.len() as i64;
        let tree = dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count };
        document.objects.insert(pages, tree.into());
        let catalog = document.add_object(dictionary! { "Type" => "Catalog", "Pages" => pages });
        document.trailer.set("Root", catalog);
        let mut bytes = Vec::new();
        document.save_to(&mut bytes).unwrap();
        bytes
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
            assert!(
                matches!(
                    error,
                    Error::Document(DocumentError::JsonLine { line: 1, .. })
                ),
                "{error}"
            );
        }
        let bad_tsv: [(&[u8], usize); 3] = [
            (b"a\tb\n", 1),
            (b"id\ttext\n1\ta\n2\n", 3),
            (b"id\ttext\n1\t\"open\n2\tb\n", 2),
        ];
        for (tsv, expected) in bad_tsv {
            let error = read(&[("a.tsv", tsv)], 9).unwrap_err();
            assert!(
                matches!(error, Error::Document(DocumentError::TableLine { line, .. }) if line == expected),
                "{error}"
            );
        }
    }

    #[test]
    fn duplicate_ids_and_empty_folders_are_refused() {
        let row = b"{\"id\": \"x\", \"text\": \"a\"}\n";
        let error = read(&[("a.jsonl", row), ("b.jsonl", row)], 9).unwrap_err();
        assert!(
            matches!(&error, Error::Document(DocumentError::DuplicateId { id, .. }) if id == "x"),
            "{error}"
        );
        let error = read(&[("a.docx", b"PK")], 9).unwrap_err().to_string();
        assert!(
            error.contains(".jsonl") && error.contains("a.docx"),
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
