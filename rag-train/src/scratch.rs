//! A small model from nothing but the user's texts: tokenizers trained on them, weights at random.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet},
};

use ahash::AHashMap;
use burn::tensor::Device;
use rag_core::{Passage, Tokenizer, marginal::RagModel};
use rag_generate::{
    Checkpoint, Rag, RagConfig,
    generator::{GeneratorConfig, T5Config},
};
use rag_retrieve::{
    EncoderConfig, Normalization, Pooling, RetrieverError, Storage, TextEncoder,
    build_knowledge_base, encoder::BertConfig,
};
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, SplitDelimiterBehavior,
    decoders::wordpiece::WordPiece as WordPieceDecoder,
    models::{unigram::Unigram, wordpiece::WordPiece},
    normalizers::BertNormalizer,
    pre_tokenizers::{
        bert::BertPreTokenizer,
        metaspace::Metaspace,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::{bert::BertProcessing, template::TemplateProcessing},
};

use crate::{InverseCloze, Result, inverse_cloze};

/// Sizes of a model that is trained from nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScratchConfig {
    /// RAG-Sequence or RAG-Token.
    pub model: RagModel,
    /// Passages retrieved for a question.
    pub n_docs: usize,
    /// Size of the question and passage vectors.
    pub encoder_width: usize,
    /// Layers of the encoders.
    pub encoder_layers: usize,
    /// Size of the generator's states.
    pub generator_width: usize,
    /// Layers of the generator's encoder, and of its decoder.
    pub generator_layers: usize,
    /// Heads of every attention.
    pub heads: usize,
    /// Dropout everywhere.
    pub dropout: f64,
    /// Most tokens of each of the two vocabularies.
    pub vocabulary: usize,
    /// Longest context in tokens.
    pub max_combined_length: usize,
    /// Longest answer in tokens.
    pub max_answer_length: usize,
    /// How the encoders learn from the passages alone.
    pub inverse_cloze: InverseCloze,
    /// Seed of the weights.
    pub seed: u64,
}

impl Default for ScratchConfig {
    fn default() -> Self {
        Self {
            model: RagModel::Sequence,
            n_docs: 5,
            encoder_width: 128,
            encoder_layers: 1,
            generator_width: 128,
            generator_layers: 2,
            heads: 4,
            dropout: 0.0,
            vocabulary: 8_000,
            max_combined_length: 160,
            max_answer_length: 16,
            inverse_cloze: InverseCloze::default(),
            seed: 0,
        }
    }
}

impl ScratchConfig {
    /// A model with random weights over `passages`, with vocabularies learnt from them and from
    /// `texts`, such as the training questions and answers.
    ///
    /// Both encoders begin as the same random projection of the words of a text, so that texts with
    /// common words are already near each other.
    ///
    /// # Errors
    /// Those of [`ScratchConfig::init_around`].
    pub fn init(&self, passages: Vec<Passage>, texts: &[&str], device: &Device) -> Result<Rag> {
        device.seed(self.seed);
        let tokenizer = encoder_tokenizer(&corpus(&passages, texts), self.vocabulary)?;
        let config = self.encoder_config(&tokenizer);
        let encoder = TextEncoder::new(config.init(device)?, tokenizer, config)?;
        let encoder = inverse_cloze::pretrain(encoder, &passages, self.inverse_cloze)?;
        self.init_around(encoder, passages, texts, device)
    }

    /// A generator with random weights around an encoder that is there already, such as
    /// all-MiniLM-L6-v2; it becomes both the question encoder and the passages'.
    ///
    /// # Errors
    /// [`rag_retrieve::RetrieverError::TooFewPassages`]; those of the tokenizers and of
    /// [`build_knowledge_base`].
    pub fn init_around(
        &self,
        encoder: TextEncoder,
        passages: Vec<Passage>,
        texts: &[&str],
        device: &Device,
    ) -> Result<Rag> {
        if self.n_docs > passages.len() {
            let error = RetrieverError::TooFewPassages {
                n_docs: self.n_docs,
                passages: passages.len(),
            };
            return Err(rag_retrieve::Error::from(error).into());
        }
        let tokenizer = generator_tokenizer(&corpus(&passages, texts), self.vocabulary)?;
        device.seed(self.seed);
        let config = self.rag_config(encoder.config.clone(), &tokenizer);
        let mut checkpoint = Checkpoint::new(config, device)?;
        checkpoint.question_encoder = encoder.encoder.clone();
        let knowledge = build_knowledge_base(passages, &encoder, Storage::F32, |_| {})?;
        let question_tokenizer = encoder.tokenizer.clone();
        let mut rag = Rag::new(
            checkpoint,
            question_tokenizer,
            tokenizer,
            encoder,
            knowledge,
        )?;
        rag.generation = rag.generation.with_max_length(self.max_answer_length);
        Ok(rag)
    }

    fn encoder_config(&self, tokenizer: &Tokenizer) -> EncoderConfig {
        EncoderConfig {
            bert: BertConfig {
                vocab_size: tokenizer.vocabulary(),
                hidden_size: self.encoder_width,
                num_hidden_layers: self.encoder_layers,
                num_attention_heads: self.heads,
                intermediate_size: 2 * self.encoder_width,
                hidden_dropout_prob: self.dropout,
                attention_probs_dropout_prob: self.dropout,
                ..BertConfig::default()
            },
            pooling: Pooling::Mean,
            normalization: Normalization::None,
            ..EncoderConfig::default()
        }
    }

    fn rag_config(&self, question_encoder: EncoderConfig, generator: &Tokenizer) -> RagConfig {
        let t5 = T5Config {
            vocab_size: generator.vocabulary(),
            d_model: self.generator_width,
            d_kv: self.generator_width / self.heads,
            d_ff: 2 * self.generator_width,
            num_layers: self.generator_layers,
            num_heads: self.heads,
            dropout_rate: self.dropout,
            ..T5Config::default()
        };
        let mut config = RagConfig::new(self.model, question_encoder, GeneratorConfig::T5(t5));
        config.n_docs = self.n_docs;
        config.max_combined_length = self.max_combined_length;
        config
    }
}

fn corpus<'a>(passages: &'a [Passage], texts: &[&'a str]) -> Vec<&'a str> {
    passages
        .iter()
        .flat_map(|passage| [passage.title.as_str(), passage.text.as_str()])
        .chain(texts.iter().copied())
        .collect()
}

/// BERT's kind: lower-cased words, Chinese by the character; unknown words by the letter.
fn encoder_tokenizer(corpus: &[&str], vocabulary: usize) -> Result<Tokenizer> {
    let words = count(corpus, Some(&BertNormalizer::default()), &BertPreTokenizer)?;
    let letters = letters(&words);
    let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .map(str::to_owned)
        .into_iter()
        .chain(letters.iter().map(char::to_string))
        .chain(letters.iter().map(|letter| format!("##{letter}")))
        .chain(words.into_iter().map(|(word, _)| word));
    let mut ids = AHashMap::new();
    for piece in pieces.take(vocabulary) {
        let next = ids.len() as u32;
        ids.entry(piece).or_insert(next);
    }
    let model = WordPiece::builder()
        .vocab(ids)
        .unk_token("[UNK]".into())
        .build();
    let mut tokenizer = tokenizers::Tokenizer::new(model.map_err(failed)?);
    tokenizer
        .with_normalizer(Some(BertNormalizer::default()))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_decoder(Some(WordPieceDecoder::default()))
        .with_post_processor(Some(BertProcessing::new(
            ("[SEP]".into(), 3),
            ("[CLS]".into(), 2),
        )));
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    tokenizer.add_special_tokens(&special.map(|token| AddedToken::from(token, true)));
    Ok(Tokenizer::new(tokenizer, "the encoders' tokenizer"))
}

/// T5's kind: words with the space before them, Chinese by the character; unknown words by the
/// letter, and an end token.
fn generator_tokenizer(corpus: &[&str], vocabulary: usize) -> Result<Tokenizer> {
    let characters = SplitPattern::Regex(r"\p{Han}|[。，、；：？！《》“”]".into());
    let characters = Split::new(characters, SplitDelimiterBehavior::Isolated, false);
    let splits = Sequence::new(vec![
        Metaspace::default().into(),
        characters.map_err(failed)?.into(),
    ]);
    let words = count(corpus, None::<&BertNormalizer>, &splits)?;
    let total: usize = words.iter().map(|(_, count)| count).sum();
    let score = |count: usize| (count as f64 / total as f64).ln();
    // A letter by itself costs more than any word that holds it.
    let letter_score = 2.0 * score(1);
    let mut known = HashSet::new();
    let pieces = ["<pad>", "</s>", "<unk>"]
        .map(|special| (special.to_owned(), 0.0))
        .into_iter()
        .chain(
            letters(&words)
                .into_iter()
                .map(|letter| (letter.to_string(), letter_score)),
        )
        .chain(
            words
                .iter()
                .map(|(word, count)| (word.clone(), score(*count))),
        )
        .filter(|(piece, _)| known.insert(piece.clone()))
        .take(vocabulary)
        .collect();
    let model = Unigram::from(pieces, Some(2), false);
    let model = model.map_err(failed)?;
    let ending = TemplateProcessing::builder()
        .try_single("$A </s>")
        .map_err(|error| failed(error.into()))?
        .special_tokens(vec![("</s>", 1)])
        .build()
        .map_err(|error| failed(error.into()))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer
        .with_pre_tokenizer(Some(splits))
        .with_decoder(Some(Metaspace::default()))
        .with_post_processor(Some(ending));
    let special = ["<pad>", "</s>", "<unk>"];
    tokenizer.add_special_tokens(&special.map(|token| AddedToken::from(token, true)));
    Ok(Tokenizer::new(tokenizer, "the generator's tokenizer"))
}

/// The words of a corpus as a tokenizer splits them, most frequent first. The trainers of the
/// tokenizers crate break ties by hash order; a seed should give one model.
fn count(
    corpus: &[&str],
    normalizer: Option<&impl Normalizer>,
    splits: &impl PreTokenizer,
) -> Result<Vec<(String, usize)>> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in corpus {
        let mut text = NormalizedString::from(*text);
        if let Some(normalizer) = normalizer {
            normalizer.normalize(&mut text).map_err(failed)?;
        }
        let mut text = PreTokenizedString::from(text);
        splits.pre_tokenize(&mut text).map_err(failed)?;
        for (word, ..) in text.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    let mut words: Vec<_> = counts.into_iter().collect();
    words.sort_by_key(|(_, count)| Reverse(*count));
    Ok(words)
}

fn letters(words: &[(String, usize)]) -> BTreeSet<char> {
    words.iter().flat_map(|(word, _)| word.chars()).collect()
}

fn failed(source: tokenizers::Error) -> rag_core::Error {
    rag_core::Error::Tokenizer {
        path: "made from the corpus".into(),
        source,
    }
}
