//! Text of passages and questions, which is text whatever it spells, and what a prompt needs to know of the tokens that
//! are none: marks, such as `<|im_end|>` or `<think>`.

use tokenizers::{AddedVocabulary, Encoding, Model, ModelWrapper, OffsetType, PreTokenizer};

use super::{
    Tokenizer, failed,
    plain::{Plain, is_mark},
};
use crate::error::Result;

/// A token, and the bytes of the text that it stands for.
struct Piece {
    id: u32,
    start: usize,
    end: usize,
}

impl Tokenizer {
    /// Ids of `text` without special tokens, and with none found in it: `<|im_end|>` is encoded as the signs and
    /// letters that it is written with. So is every other token that was added to the vocabulary, special or not, but
    /// for runs of white space, which are text.
    ///
    /// The text is taken to go on another: the space that SentencePiece's tokenizers put before a text is left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer).
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        let pieces = self.pieces(text)?;
        Ok(pieces.into_iter().map(|piece| piece.id).collect())
    }

    /// The first ids of [`Tokenizer::encode_text`], at most `longest`. The cut is between two characters, although a
    /// token may be a part of one.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer).
    pub fn cut_text(&self, text: &str, longest: usize) -> Result<Vec<u32>> {
        let pieces = self.pieces(text)?;
        let mut kept = pieces.len();
        if kept > longest {
            kept = longest;
            while kept > 0 && pieces[kept].start < pieces[kept - 1].end {
                kept -= 1;
            }
        }
        Ok(pieces[..kept].iter().map(|piece| piece.id).collect())
    }

    /// The byte of `text` where the first mark begins: a token that was added to the vocabulary and is not white space.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer).
    pub fn first_mark(&self, text: &str) -> Result<Option<usize>> {
        let encoding = (self.inner.encode(text, false)).map_err(failed(&self.path))?;
        let marks = self.marks();
        let first = (encoding.get_ids().iter())
            .position(|id| matches!(marks.simple_id_to_token(*id), Some(token) if is_mark(&token)));
        Ok(first.map(|first| encoding.get_offsets()[first].0))
    }

    /// Whether a space is put before a text that goes on no other, as SentencePiece's tokenizers do.
    pub fn begins_with_space(&self) -> bool {
        self.plain().begins_with_space
    }

    /// The special tokens that [`Tokenizer::encode`] puts before a text: BOS, or none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer).
    pub fn bos(&self) -> Result<Vec<u32>> {
        let encoding = (self.inner.encode("a", true)).map_err(failed(&self.path))?;
        let special = encoding.get_special_tokens_mask().iter();
        let before = special.take_while(|special| **special == 1).count();
        Ok(encoding.get_ids()[..before].to_vec())
    }

    /// The tokens of a text. A vocabulary may hold the text of a mark, and its merges or its words may make it: the text
    /// is then cut after the first character of the mark, which no longer is one.
    fn pieces(&self, text: &str) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        // The last part is the next in the text.
        let mut parts = vec![(0, text)];
        while let Some((from, part)) = parts.pop() {
            let encoding = self.unmarked(part).map_err(failed(&self.path))?;
            let mut end = part.len();
            for cut in self.cuts(&encoding, part).into_iter().rev() {
                parts.push((from + cut, &part[cut..end]));
                end = cut;
            }
            if end < part.len() {
                parts.push((from, &part[..end]));
                continue;
            }
            let offsets = encoding.get_offsets().iter();
            pieces.extend(
                encoding
                    .get_ids()
                    .iter()
                    .zip(offsets)
                    .map(|(&id, &(start, end))| Piece {
                        id,
                        start: from + start,
                        end: from + end,
                    }),
            );
        }
        Ok(pieces)
    }

    /// Encodes without looking for marks, as what goes on another text.
    fn unmarked(&self, text: &str) -> tokenizers::Result<Encoding> {
        let plain = self.plain();
        let normalizer = plain.normalizer.as_ref();
        let mut parts = plain.marks.extract_and_normalize(normalizer, text);
        if let Some(pre_tokenizer) = &plain.pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut parts)?;
        }
        parts.tokenize(|part| self.inner.get_model().tokenize(part.get()))?;
        parts.into_encoding(None, 0, OffsetType::Byte)
    }

    /// The bytes after the first character of each mark that the model itself has found, rising.
    fn cuts(&self, encoding: &Encoding, text: &str) -> Vec<usize> {
        let marks = self.marks();
        // Stands for what has no token, and is special as a rule.
        let unknown = match self.inner.get_model() {
            ModelWrapper::BPE(model) => model.get_unk_token().as_deref(),
            ModelWrapper::WordPiece(model) => Some(&model.unk_token[..]),
            ModelWrapper::WordLevel(model) => Some(&model.unk_token[..]),
            // Its tokens are spelled as the text is.
            ModelWrapper::Unigram(_) => None,
        };
        let tokens = encoding.get_tokens().iter().zip(encoding.get_offsets());
        let mut cuts: Vec<usize> = tokens
            .filter(|(token, _)| marks.is_special_token(token) && Some(&token[..]) != unknown)
            .filter_map(|(_, &(start, end))| {
                let first = text.get(start..end)?.chars().next()?;
                Some(start + first.len_utf8()).filter(|cut| *cut < end)
            })
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }

    fn marks(&self) -> &AddedVocabulary {
        &self.plain().marks
    }

    fn plain(&self) -> &Plain {
        self.plain.get_or_init(|| Plain::of(&self.inner))
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{
        AddedToken,
        models::{
            bpe::{BPE, Vocab},
            wordlevel::WordLevel,
        },
        normalizers::NFKC,
        pre_tokenizers::{byte_level::ByteLevel, whitespace::WhitespaceSplit},
        processors::template::TemplateProcessing,
    };

    use super::*;

    const SPECIAL: [&str; 2] = ["<|im_end|>", "<s>"];
    const USER: [&str; 2] = ["<think>", "   "];

    /// A byte is a token, but for what merges.
    fn bytes(merges: &[(&str, &str)]) -> tokenizers::Tokenizer {
        let mut letters: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        letters.sort_unstable();
        let letters = letters.into_iter().map(String::from);
        let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
        let vocabulary: Vocab = letters.chain(merged).zip(0..).collect();
        let merges = merges
            .iter()
            .map(|(left, right)| (String::from(*left), String::from(*right)))
            .collect();
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .build()
            .unwrap();
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        tokenizer
            .with_pre_tokenizer(Some(ByteLevel::new(false, false, false)))
            .with_decoder(Some(ByteLevel::default()));
        let token = |text: &str, special| AddedToken::from(text, special).normalized(false);
        tokenizer.add_special_tokens(&SPECIAL.map(|text| token(text, true)));
        tokenizer.add_tokens(&USER.map(|text| token(text, false)));
        tokenizer
    }

    fn tokenizer(inner: tokenizers::Tokenizer) -> Tokenizer {
        Tokenizer::new(inner, "memory")
    }

    fn spelled(tokenizer: &Tokenizer, ids: &[u32]) -> String {
        tokenizer.inner.decode(ids, false).unwrap()
    }

    #[test]
    fn marks_in_a_text_are_text() {
        let tokenizer = tokenizer(bytes(&[]));
        let text = "a<|im_end|>b<think>c</think><s>雨";
        let ids = tokenizer.encode_text(text).unwrap();
        assert_eq!(ids.len(), text.len());
        for mark in ["<|im_end|>", "<think>", "<s>"] {
            let id = tokenizer.id(mark).unwrap();
            assert!(tokenizer.encode_bare(text).unwrap().contains(&id), "{mark}");
            assert!(!ids.contains(&id), "{mark}");
        }
        assert_eq!(spelled(&tokenizer, &ids), text);
        assert!(tokenizer.encode_text("").unwrap().is_empty());
    }

    #[test]
    fn a_text_without_marks_is_encoded_as_ever() {
        let tokenizer = tokenizer(bytes(&[("h", "o"), ("w", "ho")]));
        for text in ["who", " who   is it?\n\n", "雨 🌧️", "<|im_end", "e\u{301}"] {
            assert_eq!(
                tokenizer.encode_text(text).unwrap(),
                tokenizer.encode_bare(text).unwrap(),
                "{text}"
            );
        }
        let run = tokenizer.id("   ").unwrap();
        assert!(tokenizer.encode_text("a   b").unwrap().contains(&run));
    }

    #[test]
    fn what_a_normalizer_makes_a_mark_is_text() {
        let mut inner = bytes(&[]);
        inner.with_normalizer(Some(NFKC));
        let token = AddedToken::from("<eot>", true).normalized(true);
        inner.add_special_tokens(&[token]);
        let tokenizer = tokenizer(inner);
        let id = tokenizer.id("<eot>").unwrap();
        assert!(tokenizer.encode_bare("＜eot＞").unwrap().contains(&id));
        let ids = tokenizer.encode_text("＜eot＞").unwrap();
        assert_eq!(spelled(&tokenizer, &ids), "<eot>");
        assert!(!ids.contains(&id));
    }

    #[test]
    fn a_mark_that_merges_make_is_cut() {
        let tokenizer = tokenizer(bytes(&[("<", "s"), ("<s", ">")]));
        let id = tokenizer.id("<s>").unwrap();
        for text in ["<s>", "a<s>b<s><s>", "雨<s>"] {
            let ids = tokenizer.encode_text(text).unwrap();
            assert!(!ids.contains(&id), "{text}");
            assert_eq!(spelled(&tokenizer, &ids), text);
        }
    }

    #[test]
    fn a_mark_that_is_a_word_of_the_vocabulary_is_cut() {
        let words = ["<unk>", "</s>", "a"].map(String::from);
        let model = WordLevel::builder()
            .vocab(words.into_iter().zip(0..).collect())
            .unk_token("<unk>".into())
            .build()
            .unwrap();
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_pre_tokenizer(Some(WhitespaceSplit));
        inner.add_special_tokens(&["<unk>", "</s>"].map(|text| AddedToken::from(text, true)));
        let tokenizer = tokenizer(inner);
        assert_eq!(tokenizer.encode_text("a </s> b").unwrap(), [2, 0, 0, 0]);
        assert_eq!(tokenizer.encode_text("a 雨雪 a").unwrap(), [2, 0, 2]);
    }

    #[test]
    fn a_cut_is_between_characters() {
        let tokenizer = tokenizer(bytes(&[]));
        let text = "a雨🌧️é";
        let whole = tokenizer.encode_text(text).unwrap();
        assert_eq!(whole.len(), text.len());
        for longest in 0..=whole.len() + 1 {
            let kept = (0..=longest.min(text.len()))
                .rev()
                .find(|end| text.is_char_boundary(*end))
                .unwrap();
            let ids = tokenizer.cut_text(text, longest).unwrap();
            assert_eq!(ids, whole[..kept], "{longest}");
        }
    }

    #[test]
    fn the_first_mark_is_found() {
        let tokenizer = tokenizer(bytes(&[]));
        let first = |text: &str| tokenizer.first_mark(text).unwrap();
        assert_eq!(first("\nAnswer:   "), None);
        assert_eq!(first(""), None);
        assert_eq!(first("<|im_end|>\n"), Some(0));
        assert_eq!(first("雨   \n<think><s>"), Some("雨   \n".len()));
    }

    #[test]
    fn bos_is_what_stands_before_a_text() {
        assert!(tokenizer(bytes(&[])).bos().unwrap().is_empty());
        let mut inner = bytes(&[]);
        let [end, bos] = SPECIAL.map(|text| inner.token_to_id(text).unwrap());
        for (template, expected) in [
            ("<s> $A", vec![bos]),
            ("<s> $A <|im_end|>", vec![bos]),
            ("$A <|im_end|>", vec![]),
        ] {
            let processing = TemplateProcessing::builder()
                .try_single(template)
                .unwrap()
                .special_tokens(vec![
                    ("<s>".to_owned(), bos),
                    ("<|im_end|>".to_owned(), end),
                ])
                .build()
                .unwrap();
            inner.with_post_processor(Some(processing));
            let tokenizer = tokenizer(inner.clone());
            assert_eq!(tokenizer.bos().unwrap(), expected, "{template}");
        }
    }

    /// As Llama 2's and Mistral's files spell their tokenizer, in either way.
    #[test]
    fn a_text_that_goes_on_another_begins_without_a_space() {
        use tokenizers::{
            normalizers::{Prepend, Replace, Sequence},
            pre_tokenizers::metaspace::{Metaspace, PrependScheme},
        };
        let letters = ["▁", "a", "b", "▁a", "▁b"];
        let vocabulary: Vocab = letters.map(String::from).into_iter().zip(0..).collect();
        let merges = [("▁", "a"), ("▁", "b")];
        let merges = merges.map(|(left, right)| (left.to_owned(), right.to_owned()));
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, merges.to_vec())
            .build()
            .unwrap();
        let normalizing: tokenizers::NormalizerWrapper = Sequence::new(vec![
            Prepend::new("▁".into()).into(),
            Replace::new(" ", "▁").unwrap().into(),
        ])
        .into();
        let spacing = Metaspace::new('▁', PrependScheme::Always, false);
        let mut first = tokenizers::Tokenizer::new(model);
        let mut second = first.clone();
        first.with_normalizer(Some(normalizing));
        second.with_pre_tokenizer(Some(spacing));
        for inner in [first, second] {
            let tokenizer = tokenizer(inner);
            assert!(tokenizer.begins_with_space());
            assert_eq!(tokenizer.encode_bare("a b").unwrap(), [3, 4]);
            assert_eq!(tokenizer.encode_text("a b").unwrap(), [1, 4]);
            assert_eq!(tokenizer.encode_text(" a").unwrap(), [3]);
        }
        assert!(!tokenizer(bytes(&[])).begins_with_space());
    }
}
