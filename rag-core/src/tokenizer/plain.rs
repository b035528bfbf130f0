use tokenizers::{
    AddedVocabulary, NormalizerWrapper, PreTokenizerWrapper, normalizers, pre_tokenizers,
    pre_tokenizers::metaspace::PrependScheme,
};

/// How a text is encoded that goes on another, and is searched for no marks.
pub(super) struct Plain {
    /// The added tokens, all of them to be passed over but for white space.
    pub marks: AddedVocabulary,
    /// The tokenizer's own, without the space that some put before a text.
    pub normalizer: Option<NormalizerWrapper>,
    /// The tokenizer's own, likewise.
    pub pre_tokenizer: Option<PreTokenizerWrapper>,
    /// Whether the tokenizer puts a space before a text.
    pub begins_with_space: bool,
}

impl Plain {
    pub fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let mut marks = tokenizer.get_added_vocabulary().clone();
        let added: Vec<_> = (marks.get_added_tokens_decoder().values())
            .filter(|token| is_mark(&token.content))
            .map(|token| token.clone().special(true))
            .collect();
        let (model, normalizer) = (tokenizer.get_model(), tokenizer.get_normalizer());
        marks.add_special_tokens(&added, model, normalizer);
        marks.set_encode_special_tokens(true);
        let mut begins_with_space = false;
        let normalizer = normalizer.cloned();
        let pre_tokenizer = tokenizer.get_pre_tokenizer().cloned();
        Self {
            marks,
            normalizer: normalizer
                .and_then(|normalizer| without_prepending(normalizer, &mut begins_with_space)),
            pre_tokenizer: pre_tokenizer
                .map(|pre_tokenizer| without_space(pre_tokenizer, &mut begins_with_space)),
            begins_with_space,
        }
    }
}

/// Whether an added token is more than white space, as SentencePiece writes it or as it is.
pub(super) fn is_mark(token: &str) -> bool {
    !token.chars().all(|c| c.is_whitespace() || c == '▁')
}

/// The normalizer without what puts a space before each text.
fn without_prepending(
    normalizer: NormalizerWrapper,
    prepends: &mut bool,
) -> Option<NormalizerWrapper> {
    match normalizer {
        NormalizerWrapper::Prepend(_) => {
            *prepends = true;
            None
        }
        NormalizerWrapper::Sequence(all) => {
            let all = all.as_ref().iter().cloned();
            let kept = all.filter_map(|one| without_prepending(one, prepends));
            let kept = normalizers::utils::Sequence::new(kept.collect());
            Some(NormalizerWrapper::Sequence(kept))
        }
        other => Some(other),
    }
}

/// The pre-tokenizer that puts no space before a text.
fn without_space(pre_tokenizer: PreTokenizerWrapper, prepends: &mut bool) -> PreTokenizerWrapper {
    match pre_tokenizer {
        PreTokenizerWrapper::Metaspace(mut space) => {
            *prepends |= space.prepend_scheme != PrependScheme::Never;
            space.set_prepend_scheme(PrependScheme::Never);
            PreTokenizerWrapper::Metaspace(space)
        }
        PreTokenizerWrapper::ByteLevel(mut bytes) => {
            *prepends |= bytes.add_prefix_space;
            bytes.add_prefix_space = false;
            PreTokenizerWrapper::ByteLevel(bytes)
        }
        PreTokenizerWrapper::Sequence(all) => {
            let all = all.as_ref().iter().cloned();
            let all = all.map(|one| without_space(one, prepends)).collect();
            PreTokenizerWrapper::Sequence(pre_tokenizers::sequence::Sequence::new(all))
        }
        other => other,
    }
}
