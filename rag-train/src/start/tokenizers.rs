//! Tokenizers learnt from texts: one of BERT's kind for encoders, one of T5's for generators.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet},
};

use ahash::AHashMap;
use rag_core::Tokenizer;
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

use crate::error::Result;

/// BERT's kind: lower-cased words, Chinese by the character; unknown words by the letter.
pub(super) fn encoder_tokenizer(corpus: &[&str], vocabulary: usize) -> Result<Tokenizer> {
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
pub(super) fn generator_tokenizer(corpus: &[&str], vocabulary: usize) -> Result<Tokenizer> {
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
