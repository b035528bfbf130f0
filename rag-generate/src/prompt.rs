use rag_core::{Passage, Tokenizer};

use crate::{
    config::RagConfig,
    error::{Error, Result},
    generator::Prompt,
};

/// Token ids of the contexts that the generator reads: each passage with the question, as the configuration's
/// [template](crate::Template) writes a prompt, or else the generator's
/// [family](crate::generator::family::Family::prompt). They have at most `max_combined_length` tokens each and no more
/// than the generator has positions for.
///
/// The text of a passage is cut where it does not fit, then its title, never the question.
///
/// # Errors
/// [`Error::QuestionTooLong`] where not even an empty passage fits; [`Error::Template`]; those of the tokenizer.
pub fn pack<'a>(
    question: &str,
    passages: impl IntoIterator<Item = &'a Passage>,
    config: &RagConfig,
    tokenizer: &Tokenizer,
) -> Result<Vec<Vec<u32>>> {
    let family = config.generator.family();
    let positions = family.longest_context().unwrap_or(usize::MAX);
    let longest = config.max_combined_length.min(positions);
    let too_long = || too_long(question, longest, tokenizer);
    let passages = passages
        .into_iter()
        .map(|passage| (passage.title.trim_matches('"'), &passage.text[..]));

    if let Some(template) = &config.template {
        let frame = template.frame(question, tokenizer)?;
        let tokens = frame.len();
        let room =
            (longest.checked_sub(tokens)).ok_or(Error::QuestionTooLong { tokens, longest })?;
        return passages
            .map(|(title, text)| {
                let passage = template.passage_text(title, text);
                let passage = format!("{}{passage}", frame.spaces);
                let passage = tokenizer.cut_text(&passage, room)?;
                Ok([&frame.head[..], &passage, &frame.tail].concat())
            })
            .collect();
    }

    let encode = |title: &str, text: &str| {
        let prompt = Prompt {
            question,
            title,
            text,
            prefix: config.prefix.as_deref().unwrap_or_default(),
            title_separator: &config.title_sep,
            question_separator: &config.doc_sep,
        };
        Ok(family.prompt(&prompt, tokenizer)?)
    };
    passages
        .map(|(title, text)| {
            if let Some(ids) = fit(text, longest, tokenizer, |text| encode(title, text))? {
                return Ok(ids);
            }
            fit(title, longest, tokenizer, |title| encode(title, ""))?.ok_or_else(too_long)
        })
        .collect()
}

/// The ids of `part` in its context, without as many of its last tokens as it takes to fit; `None`
/// where nothing of it fits. Tokens may merge anew at the cut, so that a first guess is corrected by
/// what is still too much.
fn fit(
    part: &str,
    longest: usize,
    tokenizer: &Tokenizer,
    encode: impl Fn(&str) -> Result<Vec<u32>>,
) -> Result<Option<Vec<u32>>> {
    let mut ids = encode(part)?;
    if ids.len() <= longest {
        return Ok(Some(ids));
    }
    let ends: Vec<usize> = (tokenizer.offsets(part)?.into_iter())
        .map(|(_, end)| end)
        .collect();
    let mut kept = ends.len();
    while kept > 0 {
        kept = kept.saturating_sub(ids.len() - longest);
        let end = kept.checked_sub(1).map_or(0, |last| ends[last]);
        ids = encode(&part[..end])?;
        if ids.len() <= longest {
            return Ok(Some(ids));
        }
    }
    Ok(None)
}

fn too_long(question: &str, longest: usize, tokenizer: &Tokenizer) -> Error {
    match tokenizer.encode(question) {
        Ok(encoding) => Error::QuestionTooLong {
            tokens: encoding.ids.len(),
            longest,
        },
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use rag_core::marginal::RagModel;
    use rag_retrieve::EncoderConfig;
    use serde_json::json;

    use super::*;
    use crate::generator::fixtures::{Fixture, Tiny};

    /// A word, a sign or a Chinese character is a token; `</s>` ends a text.
    fn tokenizer() -> Tokenizer {
        let words = "a b c d e f g h who wrote it ? / // title text hamlet : _ \" 雨 下 了 吗";
        let vocabulary: serde_json::Map<_, _> = ["</s>", "<unk>"]
            .into_iter()
            .chain(words.split(' '))
            .enumerate()
            .map(|(id, word)| (word.to_owned(), id.into()))
            .collect();
        let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
        let first = json!({"Sequence": {"id": "A", "type_id": 0}});
        let second = json!({"Sequence": {"id": "B", "type_id": 0}});
        let signs = json!({"type": "Split", "pattern": {"Regex": "\\s+|[\\p{Han}\"]|\\?"}, "behavior": "Isolated", "invert": false});
        let tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [signs, {"type": "WhitespaceSplit"}]},
            "decoder": null,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [first, end],
                "pair": [first, second, end],
                "special_tokens": {"</s>": {"id": "</s>", "ids": [0], "tokens": ["</s>"]}},
            },
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
        });
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("burn-rag-pack-{}-{count}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        let tokenizer = Tokenizer::from_file(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        tokenizer
    }

    fn config(longest: usize) -> RagConfig {
        let tiny = Tiny {
            positions: 1024,
            ..Tiny::default()
        };
        let generator = (Fixture::Bart.config)(tiny);
        let mut config = RagConfig::new(RagModel::Token, EncoderConfig::default(), generator);
        config.max_combined_length = longest;
        config
    }

    fn packed(question: &str, passage: &Passage, config: &RagConfig) -> Result<String> {
        let tokenizer = tokenizer();
        let mut contexts = pack(question, [passage], config, &tokenizer)?;
        assert_eq!(contexts.len(), 1);
        let context = contexts.swap_remove(0);
        assert!(context.len() <= config.max_combined_length);
        let words: Vec<_> = context
            .iter()
            .map(|&id| tokenizer.token(id).unwrap())
            .collect();
        Ok(words.join(" "))
    }

    #[test]
    fn a_context_is_title_text_and_question() {
        let passage = Passage::new("1", "hamlet", "a b c");
        let context = packed("who wrote it?", &passage, &config(300)).unwrap();
        assert_eq!(context, "hamlet / a b c // who wrote it ? </s>");
        let untitled = Passage::new("1", "", "a b");
        assert_eq!(
            packed("who?", &untitled, &config(300)).unwrap(),
            "/ a b // who ? </s>"
        );
        let quoted = Passage::new("1", "\"hamlet\"", "a \"b\"");
        assert_eq!(
            packed("who?", &quoted, &config(300)).unwrap(),
            "hamlet / a \" b \" // who ? </s>"
        );
    }

    #[test]
    fn separators_and_prefix_are_those_of_the_configuration() {
        let mut config = config(300);
        config.title_sep = " : ".into();
        config.doc_sep = " _ ".into();
        config.prefix = Some("g h ".into());
        let passage = Passage::new("1", "title", "text");
        assert_eq!(
            packed("who?", &passage, &config).unwrap(),
            "g h title : text _ who ? </s>"
        );
    }

    #[test]
    fn the_question_is_the_string_that_was_asked() {
        let prompt = Prompt {
            question: "who  wrote\u{a0}it ?",
            title: "title",
            text: "a  b",
            prefix: "",
            title_separator: " / ",
            question_separator: " // ",
        };
        assert_eq!(prompt.joined(), "title / a b // who  wrote\u{a0}it ?");
    }

    #[test]
    fn the_passage_is_cut_and_the_question_never() {
        let passage = Passage::new("1", "hamlet", "a b c d e f g h");
        // hamlet / a b c d e f g h // who wrote it ? </s>
        const WHOLE: usize = 16;
        for longest in 8..=WHOLE + 1 {
            let context = packed("who wrote it?", &passage, &config(longest)).unwrap();
            let kept: Vec<_> = "a b c d e f g h".split(' ').take(longest - 8).collect();
            let text = kept
                .iter()
                .map(|word| format!("{word} "))
                .collect::<String>();
            assert_eq!(
                context,
                format!("hamlet / {text}// who wrote it ? </s>"),
                "{longest}"
            );
        }
    }

    #[test]
    fn chinese_is_cut_between_characters() {
        let passage = Passage::new("1", "雨", "下雨了下雨了");
        let context = packed("下雨了吗?", &passage, &config(12)).unwrap();
        assert_eq!(context, "雨 / 下 雨 了 // 下 雨 了 吗 ? </s>");
    }

    #[test]
    fn each_passage_is_cut_by_itself() {
        let passages = [
            Passage::new("1", "a", "b"),
            Passage::new("2", "a", "b c d e f g h"),
            Passage::new("3", "", ""),
        ];
        let contexts = pack("who?", &passages, &config(8), &tokenizer()).unwrap();
        let lengths: Vec<_> = contexts.iter().map(Vec::len).collect();
        assert_eq!(lengths, [7, 8, 5]);
    }

    #[test]
    fn contexts_are_no_longer_than_the_generators_positions() {
        let mut config = config(300);
        config.generator = (Fixture::Bart.config)(Tiny {
            positions: 9,
            ..Tiny::default()
        });
        let passage = Passage::new("1", "title", "a b c d e f g h");
        assert_eq!(
            packed("who?", &passage, &config).unwrap(),
            "title / a b c // who ? </s>"
        );
    }

    #[test]
    fn a_question_that_leaves_no_room_is_refused() {
        let passage = Passage::new("1", "", "a b");
        // / // who wrote it ? </s>
        assert!(packed("who wrote it?", &passage, &config(7)).is_ok());
        let error = packed("who wrote it?", &passage, &config(6)).unwrap_err();
        assert!(
            matches!(error, Error::QuestionTooLong { longest: 6, .. }),
            "{error:?}"
        );
        let message = error.to_string();
        assert!(message.contains("max_combined_length"), "{message}");
        assert!(packed("who?", &passage, &config(0)).is_err());
    }

    #[test]
    fn a_long_title_is_cut_before_the_question_is_refused() {
        let passage = Passage::new("1", "a b c d e f g h", "text");
        let context = packed("who?", &passage, &config(8)).unwrap();
        assert!(context.ends_with("// who ? </s>"), "{context}");
    }

    #[test]
    fn no_passages_give_no_contexts() {
        assert!(
            pack("who?", &[], &config(300), &tokenizer())
                .unwrap()
                .is_empty()
        );
    }
}
