//! The tokenizer of a GGUF file, rebuilt with the `tokenizers` crate.
//!
//! The file holds the tokens and the merges (or scores) of a model, and the name of the rules by which text is split
//! before merges; see [`Rules`].

use tokenizers::{
    AddedToken,
    SplitDelimiterBehavior::Isolated,
    Tokenizer,
    decoders::{
        DecoderWrapper, byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders,
        strip::Strip,
    },
    models::bpe::{BPE, Vocab},
    normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers, unicode::NFC},
    pre_tokenizers::{
        PreTokenizerWrapper, byte_level::ByteLevel, sequence::Sequence, split::Split,
        split::SplitPattern,
    },
    processors::template::TemplateProcessing,
};

use super::{
    error::GgufError,
    metadata::Metadata,
    rules::Rules,
    vocabulary::{TokenKind, Vocabulary},
};

type Result<T> = std::result::Result<T, GgufError>;

/// A tokenizer, and what its file says of the tokens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GgufTokenizer {
    /// Text to ids and back. With special tokens it adds the first and the last token that the model wants.
    ///
    /// The marks of chats are special tokens: text is free of them after
    /// `Tokenizer::set_encode_special_tokens(true)`.
    pub tokenizer: Tokenizer,
    /// Tokens, one more than the largest id. The embedding table may have more rows.
    pub vocabulary: usize,
    /// The token before a text.
    pub bos: Option<u32>,
    /// The token after a text.
    pub eos: Option<u32>,
    /// The token after a turn of a chat.
    pub eot: Option<u32>,
    /// The token that fills up rows.
    pub pad: Option<u32>,
    /// Whether a text begins with `bos` where no template says so.
    pub add_bos: bool,
    /// Whether a text ends with `eos`.
    pub add_eos: bool,
    /// Every token after which an answer is over, as llama.cpp finds them.
    pub end_tokens: Vec<u32>,
}

/// SentencePiece's sign for a space.
const SPACE: &str = "▁";
/// Longest piece of a SentencePiece model that is cut into all its pairs, in bytes.
const LONGEST_PIECE: usize = 256;

/// Merges a token of a vocabulary of pieces, at most: more would take memory out of proportion to the file.
const MERGES_PER_TOKEN: usize = 16;

/// Builds the tokenizer that the metadata describe.
pub(super) fn tokenizer(metadata: Metadata<'_>) -> Result<GgufTokenizer> {
    let key = "tokenizer.ggml.model";
    let model = metadata.text(key)?;
    let vocabulary = Vocabulary::of(metadata)?;
    let (mut tokenizer, add_bos) = match model {
        Some("gpt2") => byte_pairs(metadata, &vocabulary)?,
        Some("llama") => (pieces(metadata, &vocabulary)?, true),
        found => {
            let found = found.unwrap_or("nothing");
            return Err(GgufError::metadata(key, "gpt2 or llama", found));
        }
    };
    let flag = |key: &str| metadata.flag(&format!("tokenizer.ggml.{key}"));
    let add_bos = flag("add_bos_token")?.unwrap_or(add_bos) && vocabulary.bos.is_some();
    let add_eos = flag("add_eos_token")?.unwrap_or(false) && vocabulary.eos.is_some();
    add_marks(&mut tokenizer, &vocabulary);
    surround(
        &mut tokenizer,
        &vocabulary,
        vocabulary.bos.filter(|_| add_bos),
        vocabulary.eos.filter(|_| add_eos),
    )?;
    Ok(GgufTokenizer {
        tokenizer,
        vocabulary: vocabulary.tokens.len(),
        bos: vocabulary.bos,
        eos: vocabulary.eos,
        eot: vocabulary.eot,
        pad: vocabulary.pad,
        add_bos,
        add_eos,
        end_tokens: vocabulary.end_tokens(),
    })
}

/// Byte pairs as GPT-2 has them, and whether a text usually begins with `bos`.
fn byte_pairs(metadata: Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<(Tokenizer, bool)> {
    let found = metadata.text("tokenizer.ggml.pre")?;
    let rules = (found.and_then(Rules::named)).ok_or_else(|| GgufError::PreTokenizer {
        found: found.map_or("nothing".into(), |name| format!("{name:?}")),
        known: Rules::names(),
    })?;
    let key = "tokenizer.ggml.merges";
    let merges = metadata.texts(key)?;
    let merges = merges.ok_or_else(|| GgufError::metadata(key, "the merges", "nothing"))?;
    let merges: Result<Vec<(String, String)>> = merges
        .into_iter()
        .map(|merge| {
            // The first token may be a space itself.
            let space = merge.char_indices().skip(1).find(|(_, c)| *c == ' ');
            match space {
                Some((at, _)) => Ok((merge[..at].to_owned(), merge[at + 1..].to_owned())),
                None => Err(GgufError::metadata(
                    key,
                    "two tokens each",
                    format!("{merge:?}"),
                )),
            }
        })
        .collect();
    let model = BPE::builder()
        .vocab_and_merges(vocab(vocabulary), merges?)
        .ignore_merges(rules.ignore_merges)
        .build()
        .map_err(failed)?;
    let mut splits: Vec<PreTokenizerWrapper> = Vec::new();
    for pattern in rules.patterns {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        splits.push(Split::new(pattern, Isolated, false).map_err(failed)?.into());
    }
    splits.push(ByteLevel::new(false, false, rules.gpt2).into());
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(rules.nfc.then_some(NFC))
        .with_pre_tokenizer(Some(Sequence::new(splits)))
        .with_decoder(Some(ByteLevel::default()));
    Ok((tokenizer, rules.add_bos))
}

/// Pieces as SentencePiece has them: of all neighbours whose union is a piece, those with the highest score
/// are joined first. The same as merges in the order of the pieces' scores.
fn pieces(metadata: Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<Tokenizer> {
    let key = "tokenizer.ggml.scores";
    let scores = metadata.numbers(key)?;
    let scores = scores.ok_or_else(|| GgufError::metadata(key, "the scores", "nothing"))?;
    let tokens = &vocabulary.tokens;
    if scores.len() < tokens.len() || scores.iter().any(|score| score.is_nan()) {
        let found = format!("{} for {} tokens", scores.len(), tokens.len());
        return Err(GgufError::metadata(key, "a score for each token", found));
    }
    let mut merges = Vec::new();
    for (id, piece) in tokens.iter().enumerate() {
        let marked = !matches!(vocabulary.kind(id), TokenKind::Text);
        if piece.len() > LONGEST_PIECE && !marked {
            let expected = format!("pieces of at most {LONGEST_PIECE} bytes");
            let found = format!("{} bytes in token {id}", piece.len());
            return Err(GgufError::metadata(
                "tokenizer.ggml.tokens",
                &expected,
                found,
            ));
        }
        if piece.len() <= LONGEST_PIECE {
            let pairs = (piece.char_indices().skip(1)).map(|(at, _)| piece.split_at(at));
            let known = |text: &str| vocabulary.ids.contains_key(text);
            merges.extend(
                pairs
                    .filter(|(left, right)| known(left) && known(right))
                    .map(|(left, right)| (id, left, right)),
            );
            // Real vocabularies have about two.
            if merges.len() > MERGES_PER_TOKEN * tokens.len() {
                let expected = format!("at most {MERGES_PER_TOKEN} merges a token");
                let found = format!("{} by token {id} of {}", merges.len(), tokens.len());
                return Err(GgufError::metadata(
                    "tokenizer.ggml.tokens",
                    &expected,
                    found,
                ));
            }
        }
    }
    // Stable: of equal scores the smaller id, of one piece the shorter left part.
    merges.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]));
    let merges = (merges.into_iter())
        .map(|(_, left, right)| (left.to_owned(), right.to_owned()))
        .collect();
    let mut model = BPE::builder()
        .vocab_and_merges(vocab(vocabulary), merges)
        .byte_fallback(true)
        .fuse_unk(true);
    if let Some(unknown) = vocabulary.unknown {
        model = model.unk_token(tokens[unknown as usize].clone());
    }
    let prefix = metadata
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let replace = |from: &str, to: &str| Replace::new(from.to_owned(), to).map_err(failed);
    let mut normalizers: Vec<NormalizerWrapper> = vec![replace(" ", SPACE)?.into()];
    let mut decoders: Vec<DecoderWrapper> = vec![
        replace(SPACE, " ")?.into(),
        ByteFallback::default().into(),
        Fuse::default().into(),
    ];
    if prefix {
        normalizers.insert(0, Prepend::new(SPACE.into()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    let mut tokenizer = Tokenizer::new(model.build().map_err(failed)?);
    tokenizer
        .with_normalizer(Some(Normalizers::new(normalizers)))
        .with_decoder(Some(Decoders::new(decoders)));
    Ok(tokenizer)
}

fn vocab(vocabulary: &Vocabulary<'_>) -> Vocab {
    let ids = vocabulary.ids.iter();
    ids.map(|(token, id)| (token.clone(), *id)).collect()
}

/// Tokens that are found before text is split: marks, which no text contains, and what users have added.
fn add_marks(tokenizer: &mut Tokenizer, vocabulary: &Vocabulary<'_>) {
    let marks = vocabulary
        .tokens
        .iter()
        .enumerate()
        .filter_map(|(id, text)| {
            let special = match vocabulary.kind(id) {
                TokenKind::Text => return None,
                TokenKind::Control | TokenKind::Unknown => true,
                TokenKind::UserDefined => false,
            };
            Some(AddedToken::from(text.clone(), special).normalized(false))
        });
    tokenizer.add_tokens(&marks.collect::<Vec<_>>());
}

/// Makes the tokenizer begin and end texts as the model wants, where special tokens are asked for.
fn surround(
    tokenizer: &mut Tokenizer,
    vocabulary: &Vocabulary<'_>,
    bos: Option<u32>,
    eos: Option<u32>,
) -> Result<()> {
    if bos.is_none() && eos.is_none() {
        return Ok(());
    }
    let piece = |id: Option<u32>, sequence: &str| {
        // Templates are written as texts, in which a token's own signs would mean something.
        id.map(|id| format!("{}:{sequence}", if Some(id) == bos { "BOS" } else { "EOS" }))
    };
    let template = |sequences: &[(&str, &str)]| -> Vec<String> {
        let each = sequences.iter().flat_map(|(name, number)| {
            let text = Some(format!("${name}:{number}"));
            [piece(bos, number), text, piece(eos, number)]
        });
        each.flatten().collect()
    };
    let mut tokens = Vec::new();
    for (name, id) in [("BOS", bos), ("EOS", eos)] {
        if let Some(id) = id {
            let text = vocabulary.tokens[id as usize].clone();
            let token = tokenizers::processors::template::SpecialToken::new(
                name.to_owned(),
                vec![id],
                vec![text],
            );
            tokens.push(token.map_err(failed)?);
        }
    }
    let processing = TemplateProcessing::builder()
        .try_single(template(&[("A", "0")]))
        .and_then(|builder| builder.try_pair(template(&[("A", "0"), ("B", "1")])))
        .map_err(|reason| failed(reason.into()))?
        .special_tokens(tokens)
        .build()
        .map_err(|error| failed(Box::new(error)))?;
    tokenizer.with_post_processor(Some(processing));
    Ok(())
}

fn failed(source: tokenizers::Error) -> GgufError {
    GgufError::Tokenizer { source }
}
