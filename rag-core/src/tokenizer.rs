mod plain;
mod text;

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
};

use tokenizers::{
    AddedToken, TruncationDirection, TruncationParams, TruncationStrategy,
    models::{bpe::BPE, wordpiece::WordPiece},
    normalizers::BertNormalizer,
    pre_tokenizers::{bert::BertPreTokenizer, byte_level::ByteLevel},
    processors::bert::BertProcessing,
    processors::roberta::RobertaProcessing,
};

use crate::{
    atomic::write_file,
    checkpoint::write_json,
    error::{Error, Result},
};

/// Text to token ids and back, as the checkpoint's own tokenizer does it. Clones share the vocabulary.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// Of [`Tokenizer::encode_text`].
    plain: Arc<OnceLock<plain::Plain>>,
    path: Arc<Path>,
}

/// The ids of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Segment of each token: 0, or 1 for the second text of a pair.
    pub segments: Vec<u32>,
}

impl Tokenizer {
    /// Reads the tokenizer of a folder: `tokenizer.json`, else BERT's `vocab.txt`, else BART's
    /// `vocab.json` with `merges.txt`.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Tokenizer`].
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let [json, vocabulary, bpe, merges] =
            ["tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"]
                .map(|name| folder.join(name));
        if json.is_file() {
            Self::from_file(&json)
        } else if vocabulary.is_file() {
            Self::from_bert_vocabulary(&vocabulary, lower_cases(folder)?)
        } else if bpe.is_file() && merges.is_file() {
            Self::from_bart_files(&bpe, &merges)
        } else {
            Err(Error::MissingFile {
                folder: folder.to_owned(),
                expected: "tokenizer.json, vocab.txt, or vocab.json with merges.txt".into(),
            })
        }
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let inner = tokenizers::Tokenizer::from_file(path).map_err(failed(path))?;
        Ok(Self::new(inner, path))
    }

    /// Reads BERT's word list, one token a line.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], also where `[CLS]` or `[SEP]` is missing.
    pub fn from_bert_vocabulary(path: impl AsRef<Path>, lower_case: bool) -> Result<Self> {
        let path = path.as_ref();
        let model = WordPiece::from_file(&path.to_string_lossy())
            .unk_token("[UNK]".into())
            .build()
            .map_err(failed(path))?;
        let mut inner = tokenizers::Tokenizer::new(model);
        let special = |token: &str| {
            inner
                .token_to_id(token)
                .map(|id| (token.to_owned(), id))
                .ok_or_else(|| failed(path)(format!("the vocabulary has no {token}").into()))
        };
        let processing = BertProcessing::new(special("[SEP]")?, special("[CLS]")?);
        inner
            .with_normalizer(Some(BertNormalizer::new(true, true, None, lower_case)))
            .with_pre_tokenizer(Some(BertPreTokenizer))
            .with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()))
            .with_post_processor(Some(processing));
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        inner.add_special_tokens(&special.map(|token| AddedToken::from(token, true)));
        Ok(Self::new(inner, path))
    }

    /// Reads BART's byte-level BPE.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], also where `<s>` or `</s>` is missing.
    pub fn from_bart_files(vocabulary: impl AsRef<Path>, merges: impl AsRef<Path>) -> Result<Self> {
        let vocabulary = vocabulary.as_ref();
        let merges = merges.as_ref();
        let model = BPE::from_file(&vocabulary.to_string_lossy(), &merges.to_string_lossy())
            .build()
            .map_err(failed(vocabulary))?;
        let mut inner = tokenizers::Tokenizer::new(model);
        let special = |token: &str| {
            inner
                .token_to_id(token)
                .map(|id| (token.to_owned(), id))
                .ok_or_else(|| failed(vocabulary)(format!("the vocabulary has no {token}").into()))
        };
        let processing = RobertaProcessing::new(special("</s>")?, special("<s>")?)
            .trim_offsets(true)
            .add_prefix_space(false);
        inner
            .with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)))
            .with_decoder(Some(ByteLevel::default()))
            .with_post_processor(Some(processing));
        let special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
        inner.add_special_tokens(&special.map(|token| AddedToken::from(token, true)));
        Ok(Self::new(inner, vocabulary))
    }

    /// A tokenizer made in memory, for instance one trained on the user's own texts.
    pub fn new(inner: impl Into<tokenizers::Tokenizer>, path: impl AsRef<Path>) -> Self {
        let mut inner = inner.into();
        // Padding and truncation are this library's business: it never cuts a question.
        inner.with_padding(None);
        let _ = inner.with_truncation(None);
        Self {
            inner: Arc::new(inner),
            plain: Arc::default(),
            path: path.as_ref().into(),
        }
    }

    /// Ids of `text`, with the special tokens of the model around them.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let encoding = self.inner.encode(text, true).map_err(failed(&self.path))?;
        Ok(Encoding::from(&encoding))
    }

    /// Ids of a pair such as title and text, separated as the model expects.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Encoding> {
        let encoding = self
            .inner
            .encode((first, second), true)
            .map_err(failed(&self.path))?;
        Ok(Encoding::from(&encoding))
    }

    /// Like [`Tokenizer::encode`] of each text or [`Tokenizer::encode_pair`] of each pair, in parallel,
    /// cut to `max_length` tokens: of a pair the longer text is cut first, and the special tokens stay.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode_batch<'a, T>(&self, texts: Vec<T>, max_length: usize) -> Result<Vec<Encoding>>
    where
        T: Into<tokenizers::EncodeInput<'a>> + Send,
    {
        self.encode_cut(texts, max_length, TruncationStrategy::LongestFirst)
    }

    /// Like [`Tokenizer::encode_pair`] of each pair, in parallel, cut to `max_length` tokens: of a pair
    /// the second text is cut, never the first.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], also where a first text is too long by itself.
    pub fn encode_pairs(
        &self,
        pairs: Vec<(String, String)>,
        max_length: usize,
    ) -> Result<Vec<Encoding>> {
        self.encode_cut(pairs, max_length, TruncationStrategy::OnlySecond)
    }

    fn encode_cut<'a, T>(
        &self,
        texts: Vec<T>,
        max_length: usize,
        strategy: TruncationStrategy,
    ) -> Result<Vec<Encoding>>
    where
        T: Into<tokenizers::EncodeInput<'a>> + Send,
    {
        let mut truncating = (*self.inner).clone();
        truncating
            .with_truncation(Some(TruncationParams {
                max_length,
                strategy,
                direction: TruncationDirection::Right,
                ..Default::default()
            }))
            .map_err(failed(&self.path))?;
        let encodings = truncating
            .encode_batch(texts, true)
            .map_err(failed(&self.path))?;
        Ok(encodings.iter().map(Encoding::from).collect())
    }

    /// The byte range of `text` that each of its tokens covers, without special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn offsets(&self, text: &str) -> Result<Vec<(usize, usize)>> {
        let encoding = self.inner.encode(text, false).map_err(failed(&self.path))?;
        Ok(encoding.get_offsets().to_vec())
    }

    /// Ids of `text` without special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode(text, false).map_err(failed(&self.path))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(self.decode_untrimmed(ids)?.trim().to_owned())
    }

    /// The text of `ids` with the white space that it begins and ends with, special tokens left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn decode_untrimmed(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(failed(&self.path))
    }

    /// The text of one token as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token as the vocabulary spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the largest id.
    pub fn vocabulary(&self) -> usize {
        self.inner
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |largest| *largest as usize + 1)
    }

    /// Checks that every id has a row in an embedding table.
    ///
    /// # Errors
    /// [`Error::Vocabulary`].
    pub fn fits(&self, vocabulary: usize) -> Result<()> {
        match self.vocabulary() {
            own if own > vocabulary => Err(Error::Vocabulary {
                path: self.path.to_path_buf(),
                largest: own as u32 - 1,
                vocabulary,
            }),
            _ => Ok(()),
        }
    }

    /// Writes `tokenizer.json`, and `settings` as the `tokenizer_config.json` beside it that
    /// transformers wants.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Tokenizer`].
    pub fn save(&self, folder: impl AsRef<Path>, settings: &serde_json::Value) -> Result<()> {
        let folder = folder.as_ref();
        let json = self.to_json()?;
        write_file(folder.join("tokenizer.json"), |file| {
            std::io::Write::write_all(file, json.as_bytes())
        })?;
        write_json(folder.join("tokenizer_config.json"), settings)
    }

    /// The `tokenizer.json` of this tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(true).map_err(failed(&self.path))
    }
}

/// Names its file; the vocabulary is too long to print.
impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocabulary", &self.vocabulary())
            .finish_non_exhaustive()
    }
}

impl From<&tokenizers::Encoding> for Encoding {
    fn from(encoding: &tokenizers::Encoding) -> Self {
        Self {
            ids: encoding.get_ids().to_vec(),
            segments: encoding.get_type_ids().to_vec(),
        }
    }
}

fn failed(path: &Path) -> impl Fn(tokenizers::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Tokenizer {
        path: path.clone(),
        source,
    }
}

fn lower_cases(folder: &Path) -> Result<bool> {
    #[derive(serde::Deserialize)]
    struct Settings {
        #[serde(default = "yes")]
        do_lower_case: bool,
    }
    fn yes() -> bool {
        true
    }
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(true);
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let settings: Settings = serde_json::from_str(&text).map_err(Error::json(&path))?;
    Ok(settings.do_lower_case)
}
