use std::{ops::Range, sync::Arc};

use rag_core::Tokenizer;
use text_splitter::{ChunkConfig, TextSplitter, TryChunkSizer};
use unicode_segmentation::UnicodeSegmentation;

use crate::{
    document::error::DocumentError,
    error::{Error, Result},
};

/// How documents are cut into passages.
///
/// Passages of Lewis et al. 2020 are disjoint windows of 100 words:
///
/// ```
/// # use rag_retrieve::Chunking;
/// let text = "To be, or not to be, that is the question.";
/// let chunks = Chunking::words(4).split(text)?;
/// let passages: Vec<&str> = chunks.into_iter().map(|chunk| &text[chunk]).collect();
/// assert_eq!(passages, ["To be, or not", "to be, that is", "the question."]);
/// # Ok::<(), rag_retrieve::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Chunking {
    unit: Unit,
    size: usize,
    overlap: usize,
}

#[derive(Clone, Debug)]
enum Unit {
    Words,
    Sentences,
    Tokens(Arc<Tokenizer>),
}

impl Chunking {
    /// Windows of `size` words. Words are parted by white space; a Chinese or Japanese character
    /// is a word of its own.
    pub fn words(size: usize) -> Self {
        Self::new(Unit::Words, size)
    }

    /// Windows of `size` sentences, English or Chinese, as Unicode's annex 29 finds them, but that a
    /// line break ends a sentence only before an empty line: text may be wrapped.
    pub fn sentences(size: usize) -> Self {
        Self::new(Unit::Sentences, size)
    }

    /// Chunks of at most `size` tokens, special tokens not counted, cut at the end of a paragraph,
    /// sentence or word, whichever comes last within the size.
    ///
    /// A single character of more than `size` tokens is a chunk.
    pub fn tokens(size: usize, tokenizer: &Tokenizer) -> Self {
        Self::new(Unit::Tokens(Arc::new(tokenizer.clone())), size)
    }

    /// Repeats the last `overlap` words, sentences or (at most) tokens of a chunk at the start of the
    /// next. None by default, as in the paper.
    #[must_use]
    pub fn with_overlap(mut self, overlap: usize) -> Self {
        self.overlap = overlap;
        self
    }

    /// Byte ranges of the chunks of `text`, in order: on character boundaries, without white space
    /// at either end, and together all of the text but white space.
    ///
    /// # Errors
    /// [`DocumentError::Chunking`] where the size is 0 or not above the overlap, [`rag_core::Error::Tokenizer`] where
    /// the tokenizer fails.
    pub fn split(&self, text: &str) -> Result<Vec<Range<usize>>> {
        if self.overlap >= self.size {
            return Err(DocumentError::Chunking {
                unit: self.unit.name(),
                size: self.size,
                overlap: self.overlap,
            }
            .into());
        }
        match &self.unit {
            Unit::Words => Ok(self.windows(&words(text))),
            Unit::Sentences => Ok(self.windows(&sentences(text))),
            Unit::Tokens(tokenizer) => self.within_tokens(text, tokenizer),
        }
    }

    fn new(unit: Unit, size: usize) -> Self {
        Self {
            unit,
            size,
            overlap: 0,
        }
    }

    fn windows(&self, units: &[Range<usize>]) -> Vec<Range<usize>> {
        let mut chunks = Vec::with_capacity(units.len() / (self.size - self.overlap) + 1);
        let mut rest = units;
        while let [first, ..] = rest {
            let last = rest.len().min(self.size) - 1;
            chunks.push(first.start..rest[last].end);
            if rest.len() <= self.size {
                break;
            }
            rest = &rest[self.size - self.overlap..];
        }
        chunks
    }

    fn within_tokens(&self, text: &str, tokenizer: &Tokenizer) -> Result<Vec<Range<usize>>> {
        let config = ChunkConfig::new(self.size)
            .with_sizer(Tokens(tokenizer))
            .with_overlap(self.overlap)
            .map_err(|_| {
                Error::Document(DocumentError::Chunking {
                    unit: self.unit.name(),
                    size: self.size,
                    overlap: self.overlap,
                })
            })?;
        TextSplitter::new(config)
            .try_chunk_indices(text)
            .map(|chunk| match chunk {
                Ok((start, chunk)) => Ok(start..start + chunk.len()),
                Err(error) => Err(error.into()),
            })
            .collect()
    }
}

impl Unit {
    fn name(&self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Sentences => "sentences",
            Self::Tokens(_) => "tokens",
        }
    }
}

struct Tokens<'a>(&'a Tokenizer);

impl TryChunkSizer for Tokens<'_> {
    type Error = rag_core::Error;

    fn try_size(&self, chunk: &str) -> std::result::Result<usize, Self::Error> {
        Ok(self.0.encode_bare(chunk)?.len())
    }
}

fn words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut open: Option<Kind> = None;
    for (at, character) in text.char_indices() {
        if character.is_whitespace() {
            open = None;
            continue;
        }
        let kind = Kind::of(character);
        let end = at + character.len_utf8();
        match (words.last_mut(), open) {
            (Some(word), Some(of)) if of.takes(kind) => {
                word.end = end;
                open = Some(if kind.is_content() { kind } else { of });
            }
            _ => {
                words.push(at..end);
                open = Some(kind);
            }
        }
    }
    words
}

/// The kind of a character, and of the word that it belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Opening,
    Mark,
    Letter,
    Ideograph,
}

impl Kind {
    fn of(character: char) -> Self {
        match character {
            '(' | '[' | '（' | '［' | '〔' | '【' | '〈' | '《' | '「' | '『' | '‘' | '“' => {
                Self::Opening
            }
            '\u{3005}'..='\u{3007}' // 々〆〇
            | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}' // kana
            | '\u{31f0}'..='\u{31ff}'
            | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' // Han
            | '\u{20000}'..='\u{3ffff}' => Self::Ideograph,
            _ if character.is_alphanumeric() => Self::Letter,
            _ => Self::Mark,
        }
    }

    fn is_content(self) -> bool {
        matches!(self, Self::Letter | Self::Ideograph)
    }

    /// Whether a word of this kind goes on with such a character: an ideograph keeps the punctuation
    /// that follows it, and takes the opening bracket before it.
    fn takes(self, next: Self) -> bool {
        match self {
            Self::Opening | Self::Mark => true,
            Self::Letter => next != Self::Ideograph,
            Self::Ideograph => next == Self::Mark,
        }
    }
}

fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut sentences: Vec<Range<usize>> = Vec::new();
    let mut wrapped = false;
    for (at, piece) in text.split_sentence_bound_indices() {
        let content = piece.trim();
        if content.is_empty() {
            wrapped = false;
            continue;
        }
        let start = at + piece.len() - piece.trim_start().len();
        let end = start + content.len();
        match sentences.last_mut() {
            Some(sentence) if wrapped => sentence.end = end,
            _ => sentences.push(start..end),
        }
        wrapped = piece.ends_with(['\n', '\r']) && !ends_sentence(content);
    }
    sentences
}

fn ends_sentence(line: &str) -> bool {
    const CLOSING: &[char] = &['"', '\'', ')', ']', '”', '’', '」', '』', '）', '】', '》'];
    const FINAL: &[char] = &[
        '.', '!', '?', '…', '。', '！', '？', '．', '｡', '؟', '।', '॥',
    ];
    line.trim_end_matches(CLOSING).ends_with(FINAL)
}

#[cfg(test)]
mod tests {
    use tokenizers::{
        models::wordlevel::WordLevel, normalizers::BertNormalizer,
        pre_tokenizers::bert::BertPreTokenizer,
    };

    use super::*;

    fn pieces<'a>(chunking: &Chunking, text: &'a str) -> Vec<&'a str> {
        let chunks = chunking.split(text).unwrap();
        chunks.into_iter().map(|chunk| &text[chunk]).collect()
    }

    fn tokenizer() -> Tokenizer {
        let model = WordLevel::builder()
            .vocab([("[UNK]".to_owned(), 0)].into_iter().collect())
            .unk_token("[UNK]".to_owned())
            .build()
            .unwrap();
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        tokenizer.with_normalizer(Some(BertNormalizer::default()));
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        let truncation = tokenizers::TruncationParams {
            max_length: 2,
            ..Default::default()
        };
        tokenizer.with_truncation(Some(truncation)).unwrap();
        Tokenizer::new(tokenizer, "test")
    }

    fn random_text(seed: u64) -> String {
        const ALPHABET: &[&str] = &[
            "a",
            "Word",
            "it's",
            "3.14",
            " ",
            " ",
            "  ",
            "\n",
            "\r\n",
            "\n\n",
            "\t",
            ". ",
            "! ",
            "?",
            "语",
            "言模型",
            "。",
            "！”",
            "，",
            "《",
            "》",
            "かな",
            "é",
            "e\u{301}",
            "👩‍🔬",
            "\u{3000}",
            "\u{2029}",
            "\u{85}",
            "\u{200b}",
            "한국어",
            "ไทย",
            "नमस्ते।",
            "\u{feff}",
            "\u{20000}",
            "(",
        ];
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % below
        };
        let length = draw(60);
        (0..length)
            .map(|_| ALPHABET[draw(ALPHABET.len())])
            .collect()
    }

    #[test]
    fn words_are_counted_as_the_reader_would() {
        let each = Chunking::words(1);
        assert_eq!(
            pieces(&each, "  it's  \n 3.14,\tok"),
            ["it's", "3.14,", "ok"]
        );
        assert_eq!(
            pieces(&each, "我爱Rust语言。"),
            ["我", "爱", "Rust", "语", "言。"]
        );
        assert_eq!(pieces(&each, "读《书》了"), ["读", "《书》", "了"]);
        assert!(pieces(&each, " \n\u{3000}").is_empty());
    }

    #[test]
    fn windows_are_disjoint_or_overlap_as_asked() {
        let text = "a b c d e f g";
        assert_eq!(pieces(&Chunking::words(3), text), ["a b c", "d e f", "g"]);
        let overlapping = Chunking::words(3).with_overlap(1);
        assert_eq!(pieces(&overlapping, text), ["a b c", "c d e", "e f g"]);
        assert_eq!(pieces(&Chunking::words(usize::MAX), text), [text]);
    }

    #[test]
    fn sentences_end_in_english_and_chinese() {
        let text = "It rained.\nThe road, wet\nand dark, shone! 下雨了。路“很滑！”对吗？\n\nA heading\n\nEnd";
        assert_eq!(
            pieces(&Chunking::sentences(1), text),
            [
                "It rained.",
                "The road, wet\nand dark, shone!",
                "下雨了。",
                "路“很滑！”",
                "对吗？",
                "A heading",
                "End"
            ]
        );
    }

    #[test]
    fn tokens_end_where_sentences_do_and_ignore_truncation() {
        let chunking = Chunking::tokens(6, &tokenizer());
        let text = "One two three. Four five six seven.";
        assert_eq!(
            pieces(&chunking, text),
            ["One two three.", "Four five six seven."]
        );
    }

    #[test]
    fn chunks_that_never_advance_are_refused() {
        for chunking in [
            Chunking::words(0),
            Chunking::sentences(2).with_overlap(2),
            Chunking::tokens(3, &tokenizer()).with_overlap(4),
        ] {
            assert!(matches!(
                chunking.split("a"),
                Err(Error::Document(DocumentError::Chunking { .. }))
            ));
        }
    }

    #[test]
    fn nothing_but_white_space_is_lost_from_any_text() {
        let tokenizer = tokenizer();
        for seed in 1..400 {
            let text = random_text(seed);
            for size in [1, 2, 5] {
                for overlap in [0, size - 1] {
                    for chunking in [
                        Chunking::words(size),
                        Chunking::sentences(size),
                        Chunking::tokens(size, &tokenizer),
                    ] {
                        covers(&chunking.with_overlap(overlap), &text);
                    }
                }
            }
        }
    }

    fn covers(chunking: &Chunking, text: &str) {
        let mut end = 0;
        let mut start = 0;
        for chunk in chunking.split(text).unwrap() {
            let content = &text[chunk.clone()];
            assert_eq!(content, content.trim(), "{chunking:?} of {text:?}");
            assert!(!content.is_empty() && chunk.start >= start);
            if chunk.start > end {
                assert_eq!(
                    text[end..chunk.start].trim(),
                    "",
                    "{chunking:?} of {text:?}"
                );
            } else if chunking.overlap == 0 {
                assert_eq!(chunk.start, end);
            }
            if let Unit::Tokens(tokenizer) = &chunking.unit {
                let tokens = tokenizer.encode_bare(content).unwrap().len();
                assert!(tokens <= chunking.size || content.chars().count() == 1);
            }
            start = chunk.start;
            end = chunk.end;
        }
        assert_eq!(text[end..].trim(), "", "{chunking:?} of {text:?}");
    }
}
