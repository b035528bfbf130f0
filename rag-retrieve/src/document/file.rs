//! One file, and the passages in it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    ops::Range,
    path::{MAIN_SEPARATOR_STR, Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use rag_core::{Passage, Source};

#[cfg(feature = "pdf")]
use super::pdf;
use super::{
    error::DocumentError,
    html,
    markdown::{Section, sections},
    rows::{Columns, Row, RowFormat},
    skipped::SkipReason,
};
use crate::{
    chunk::Chunking,
    error::{Error, Result},
};

#[derive(Clone, Copy)]
enum Format {
    Text,
    Markdown,
    Html,
    Pdf,
    JsonLines,
    Csv,
    Tsv,
}

#[derive(Clone, Copy)]
enum Compression {
    Gzip,
    Zstandard,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        match extension(path)?.as_str() {
            "txt" => Some(Self::Text),
            "md" | "markdown" => Some(Self::Markdown),
            "html" | "htm" => Some(Self::Html),
            "pdf" => Some(Self::Pdf),
            "jsonl" => Some(Self::JsonLines),
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            _ => None,
        }
    }
}

impl Compression {
    fn of(path: &Path) -> Option<Self> {
        match extension(path)?.as_str() {
            "gz" => Some(Self::Gzip),
            "zst" => Some(Self::Zstandard),
            _ => None,
        }
    }
}

fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

pub(super) struct DocumentFile {
    path: PathBuf,
    compression: Option<Compression>,
    format: Format,
    /// Its name without extensions.
    stem: String,
    /// As [`Source::file`] has it.
    pub(super) name: String,
    /// Within the folder that is read.
    pub(super) relative: String,
}

/// The contents of a file.
pub(super) struct Content {
    pub(super) passages: Vec<Passage>,
    pub(super) skipped: Option<SkipReason>,
}

impl DocumentFile {
    /// The file at `path`, if it is of a kind that is read.
    pub(super) fn of(path: &Path, relative: String) -> Option<Self> {
        let compression = Compression::of(path);
        let bare = match compression {
            Some(_) => path.with_extension(""),
            None => path.to_owned(),
        };
        let stem = bare.file_stem().unwrap_or_default();
        Some(Self {
            format: Format::of(&bare)?,
            compression,
            stem: stem.to_string_lossy().into_owned(),
            name: slashed(path),
            path: path.to_owned(),
            relative,
        })
    }

    pub(super) fn read(&self, chunking: &Chunking) -> Result<Content> {
        let read = match self.format {
            Format::Text => self.read_text(chunking, |text, title| {
                let whole = 0..text.len();
                vec![Section { title, span: whole }]
            }),
            Format::Markdown => self.read_text(chunking, sections),
            Format::Html => self.read_html(chunking),
            Format::Pdf => self.read_pdf(chunking),
            Format::JsonLines => self.read_rows(chunking, RowFormat::JsonLines),
            Format::Csv => self.read_csv(chunking),
            Format::Tsv => self.read_rows(chunking, RowFormat::Tsv(None)),
        };
        let mut content = match read {
            Ok(content) => content,
            Err(Failure::Left(reason)) => Content {
                passages: Vec::new(),
                skipped: Some(reason),
            },
            Err(Failure::Error(error)) => return Err(error),
        };
        if content.passages.is_empty() && content.skipped.is_none() {
            content.skipped = Some(SkipReason::NoText);
        }
        Ok(content)
    }

    /// The file, decompressed.
    fn open(&self) -> Reading<Box<dyn Read>> {
        let file = File::open(&self.path).map_err(rag_core::Error::io(&self.path))?;
        Ok(match self.compression {
            None => Box::new(file),
            Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(BufReader::new(file))),
            Some(Compression::Zstandard) => {
                let decoder = zstd::Decoder::new(file);
                Box::new(decoder.map_err(|error| self.failed(error))?)
            }
        })
    }

    fn bytes(&self) -> Reading<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.open()?.read_to_end(&mut bytes);
        read.map_err(|error| self.failed(error))?;
        Ok(bytes)
    }

    /// The reason for a failure to read: a compressed file can also be damaged.
    fn failed(&self, error: io::Error) -> Failure {
        match self.compression {
            Some(_) => Failure::malformed(error),
            None => rag_core::Error::io(&self.path)(error).into(),
        }
    }

    fn read_text(
        &self,
        chunking: &Chunking,
        sections: impl FnOnce(&str, String) -> Vec<Section>,
    ) -> Reading<Content> {
        let bytes = self.bytes()?;
        let file = utf8(&bytes)?;
        let text = without_mark(file);
        let mark = file.len() - text.len();
        let mut passages = Vec::new();
        for section in sections(text, self.stem.clone()) {
            let start = mark + section.span.start;
            let place = |chunk: Range<usize>| (start + chunk.start..start + chunk.end, None);
            let body = &text[section.span];
            self.chunk(chunking, &section.title, body, place, &mut passages)?;
        }
        Ok(passages.into())
    }

    fn read_html(&self, chunking: &Chunking) -> Reading<Content> {
        let bytes = self.bytes()?;
        let file = utf8(&bytes)?;
        let page = without_mark(file);
        let mark = file.len() - page.len();
        let mut passages = Vec::new();
        for section in html::sections(page, self.stem.clone()) {
            let place = |chunk| {
                let span = section.span(chunk);
                (mark + span.start..mark + span.end, None)
            };
            self.chunk(
                chunking,
                &section.title,
                &section.text,
                place,
                &mut passages,
            )?;
        }
        Ok(passages.into())
    }

    #[cfg(feature = "pdf")]
    fn read_pdf(&self, chunking: &Chunking) -> Reading<Content> {
        let bytes = self.bytes()?;
        let mut passages = Vec::new();
        let mut unread = Vec::new();
        for (page, text) in (1..).zip(pdf::pages(&bytes).map_err(Failure::malformed)?) {
            match text {
                Ok(text) => {
                    let place = |_| (0..bytes.len(), Some(page));
                    self.chunk(chunking, &self.stem, &text, place, &mut passages)?;
                }
                Err(reason) => unread.push((page, reason)),
            }
        }
        let pages = unread.len();
        let skipped =
            unread
                .into_iter()
                .next()
                .map(|(first_page, reason)| SkipReason::UnreadPages {
                    pages,
                    first_page,
                    reason,
                });
        Ok(Content { passages, skipped })
    }

    #[cfg(not(feature = "pdf"))]
    fn read_pdf(&self, _: &Chunking) -> Reading<Content> {
        Err(Failure::Left(SkipReason::NeedsFeature { feature: "pdf" }))
    }

    /// Adds the chunks of a text as passages; `place` says where in the file one stands, and on which page.
    fn chunk(
        &self,
        chunking: &Chunking,
        title: &str,
        text: &str,
        place: impl Fn(Range<usize>) -> (Range<usize>, Option<usize>),
        passages: &mut Vec<Passage>,
    ) -> Result<()> {
        for chunk in chunking.split(text)? {
            let (bytes, page) = place(chunk.clone());
            passages.push(Passage {
                id: format!("{}#{}", self.relative, passages.len()),
                title: title.to_owned(),
                text: text[chunk].to_owned(),
                source: Some(Source {
                    file: self.name.clone(),
                    bytes,
                    page,
                }),
                metadata: BTreeMap::new(),
            });
        }
        Ok(())
    }

    fn read_rows(&self, chunking: &Chunking, mut format: RowFormat) -> Reading<Content> {
        let mut reader = BufReader::new(self.open()?);
        let mut rows = Rows::of(self, chunking);
        let mut line = Vec::new();
        let mut end = 0;
        for number in 1.. {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            if read.map_err(|error| self.failed(error))? == 0 {
                break;
            }
            end += line.len();
            let mut text = utf8(&line)?;
            if number == 1 {
                text = without_mark(text);
            }
            let start = end - text.len();
            let text = text.trim_end_matches(['\r', '\n']);
            if text.trim().is_empty() {
                continue;
            }
            if let Some(row) = format.parse(text, &self.name, number)? {
                rows.add(row, start..start + text.len(), number)?;
            }
        }
        Ok(rows.finish())
    }

    fn read_csv(&self, chunking: &Chunking) -> Reading<Content> {
        let bytes = self.bytes()?;
        let file = utf8(&bytes)?;
        let text = without_mark(file);
        let mark = file.len() - text.len();
        let table_line = |line, expected, found| {
            Error::Document(DocumentError::TableLine {
                file: self.name.clone(),
                line,
                expected,
                found,
            })
        };
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .from_reader(text.as_bytes());
        let header = reader.headers().map_err(Failure::malformed)?;
        let columns = Columns::of(header.iter()).ok_or_else(|| {
            let expected = "a header parted by commas: id, text, title";
            table_line(
                1,
                expected.to_owned(),
                header.iter().collect::<Vec<_>>().join(", "),
            )
        })?;
        let mut rows = Rows::of(self, chunking);
        let mut record = csv::StringRecord::new();
        while reader
            .read_record(&mut record)
            .map_err(Failure::malformed)?
        {
            let end = reader.position().byte() as usize;
            let (start, line) = record.position().map_or((0, 0), |position| {
                (position.byte() as usize, position.line() as usize)
            });
            // The reader leaves a line feed, or empty lines, to the record behind them.
            let record_text = text[start..end].trim_start_matches(['\r', '\n']);
            let left = &text[start..end - record_text.len()];
            let (start, line) = (start + left.len(), line + left.matches('\n').count());
            if record.len() != columns.count {
                let expected = format!("{} fields parted by commas", columns.count);
                return Err(table_line(line, expected, record.len().to_string()).into());
            }
            let length = record_text.trim_end_matches(['\r', '\n']).len();
            let row = columns.row(|column| record[column].to_owned());
            rows.add(row, mark + start..mark + start + length, line)?;
        }
        Ok(rows.finish())
    }
}

/// The passages of a file whose rows are documents.
struct Rows<'a> {
    file: &'a DocumentFile,
    chunking: &'a Chunking,
    passages: Vec<Passage>,
    rows: usize,
    /// The lines of rows whose text is empty.
    without_text: Vec<usize>,
}

impl<'a> Rows<'a> {
    fn of(file: &'a DocumentFile, chunking: &'a Chunking) -> Self {
        Self {
            file,
            chunking,
            passages: Vec::new(),
            rows: 0,
            without_text: Vec::new(),
        }
    }

    /// Adds the row in `line`, which stands at `bytes` of the file.
    fn add(&mut self, row: Row, bytes: Range<usize>, line: usize) -> Result<()> {
        let ordinal = self.rows;
        self.rows += 1;
        let id = row
            .id
            .unwrap_or_else(|| format!("{}#{ordinal}", self.file.relative));
        let chunks = self.chunking.split(&row.text)?;
        if chunks.is_empty() {
            self.without_text.push(line);
        }
        for (ordinal, chunk) in chunks.iter().enumerate() {
            self.passages.push(Passage {
                id: match chunks.len() {
                    1 => id.clone(),
                    _ => format!("{id}#{ordinal}"),
                },
                title: row.title.clone(),
                text: row.text[chunk.clone()].to_owned(),
                source: Some(Source {
                    file: self.file.name.clone(),
                    bytes: bytes.clone(),
                    page: None,
                }),
                metadata: row.metadata.clone(),
            });
        }
        Ok(())
    }

    fn finish(self) -> Content {
        let rows = self.without_text.len();
        let skipped = (self.without_text.first())
            .map(|&first_line| SkipReason::EmptyRows { rows, first_line });
        Content {
            passages: self.passages,
            skipped,
        }
    }
}

impl From<Vec<Passage>> for Content {
    fn from(passages: Vec<Passage>) -> Self {
        Self {
            passages,
            skipped: None,
        }
    }
}

/// Why a file gives no passages.
enum Failure {
    /// It is left out.
    Left(SkipReason),
    /// Reading ends here.
    Error(Error),
}

type Reading<T> = std::result::Result<T, Failure>;

impl Failure {
    fn malformed(reason: impl ToString) -> Self {
        Self::Left(SkipReason::Malformed {
            reason: reason.to_string(),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<rag_core::Error> for Failure {
    fn from(error: rag_core::Error) -> Self {
        Self::Error(error.into())
    }
}

fn utf8(bytes: &[u8]) -> Reading<&str> {
    str::from_utf8(bytes).map_err(|_| Failure::Left(SkipReason::NotUtf8))
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A path as [`Source::file`] has it.
pub(super) fn slashed(path: &Path) -> String {
    path.to_string_lossy().replace(MAIN_SEPARATOR_STR, "/")
}
