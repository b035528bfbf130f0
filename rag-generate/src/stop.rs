use rag_core::Tokenizer;

/// The replacement character, which decoders write for a character of which only some bytes are there.
const HALF: char = '\u{FFFD}';

/// Finds the texts that end an answer (`stop_strings`) while it is decoded.
pub(crate) struct StopStrings<'a> {
    strings: &'a [String],
    /// Those of them that are special tokens, which a text leaves out.
    special: Vec<u32>,
    /// Bytes before the newest token that are looked at: those of the longest string, a character that the token may
    /// complete, and a space that decoders strip off a beginning.
    reach: usize,
    tokenizer: &'a Tokenizer,
}

impl<'a> StopStrings<'a> {
    pub(crate) fn new(strings: &'a [String], tokenizer: &'a Tokenizer) -> Self {
        let special = |string: &String| {
            let id = tokenizer.id(string)?;
            // Twice, since decoders strip a space off the first.
            text(tokenizer, &[id, id]).is_empty().then_some(id)
        };
        Self {
            special: strings.iter().filter_map(special).collect(),
            reach: strings.iter().map(String::len).max().unwrap_or(0) + 8,
            strings,
            tokenizer,
        }
    }

    /// Whether the text of an answer contains one of the strings, where it did not without the last token.
    ///
    /// Decodes the last few tokens alone, from a whole character on, so that the cost of an answer grows with its length and
    /// not with the square of it. What they contain is confirmed in the whole text.
    pub(crate) fn ends(&self, answer: &[u32]) -> bool {
        if self.strings.is_empty() {
            return false;
        }
        let Some((last, before)) = answer.split_last() else {
            return false;
        };
        if self.special.contains(last) {
            return true;
        }
        let mut start = before.len();
        loop {
            start = start.saturating_sub(self.reach);
            let looked_at = text(self.tokenizer, &before[start..]);
            let whole = looked_at.trim_end_matches(HALF);
            if start == 0 || (whole.len() >= self.reach && !whole.starts_with(HALF)) {
                break;
            }
        }
        let found = |tokens| find(&text(self.tokenizer, tokens), self.strings).is_some();
        found(&answer[start..]) && (start == 0 || found(answer))
    }
}

/// The text before the first of the strings in it; all of it where there is none.
pub(crate) fn before_stop<'t>(text: &'t str, strings: &[String]) -> &'t str {
    &text[..find(text, strings).unwrap_or(text.len())]
}

/// Where the first of the strings begins.
fn find(text: &str, strings: &[String]) -> Option<usize> {
    let places = strings.iter().filter_map(|string| text.find(string));
    places.min()
}

/// The text of tokens. Where a tokenizer fails, assembling the answer will say so.
fn text(tokenizer: &Tokenizer, tokens: &[u32]) -> String {
    tokenizer.decode_untrimmed(tokens).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{answer::assemble::assemble, generator::fixtures::Random};

    /// A tokenizer of these words, of which the first is special.
    fn tokenizer(words: &[&str], decoder: Value) -> Tokenizer {
        let vocabulary: serde_json::Map<_, _> = words
            .iter()
            .enumerate()
            .map(|(id, word)| ((*word).to_owned(), id.into()))
            .collect();
        let special = json!({
            "id": 0, "content": words[0], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        });
        let tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [special],
            "normalizer": null,
            "pre_tokenizer": null,
            "decoder": decoder,
            "post_processor": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": words[0]},
        });
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("burn-rag-stop-{}-{count}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        let tokenizer = Tokenizer::from_file(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        tokenizer
    }

    const END: &str = "<end>";

    /// Ċ is a line feed, Ġ a space; Ã© are the bytes of é, æĹ¥ those of 日.
    fn byte_level() -> Tokenizer {
        let words = [
            END, "a", "b", "Ċ", "ĊĊ", "ĊQ", "Ġ", "Ġa", "Q:", "Q", ":", "Ã", "©", "Ã©", "æ", "Ĺ",
            "¥", "aĊb",
        ];
        let decoder = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        });
        tokenizer(&words, decoder)
    }

    /// As SentencePiece decodes: ▁ begins a word, the first space goes, bytes are joined.
    fn pieces() -> Tokenizer {
        let words = [
            END, "▁a", "a", "b", "▁", "▁b", "<0x0A>", "Q", ":", "▁Q:", "<0xC3>", "<0xA9>", "é",
            "<0xE6>", "<0x97>", "<0xA5>",
        ];
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]});
        tokenizer(&words, decoder)
    }

    /// As T5 decodes.
    fn metaspace() -> Tokenizer {
        let words = [END, "▁a", "a", "b", "▁", "▁b", "Q", ":", "▁Q:", "é"];
        let decoder = json!({
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true,
        });
        tokenizer(&words, decoder)
    }

    fn owned(strings: &[&str]) -> Vec<String> {
        strings.iter().map(|&string| string.to_owned()).collect()
    }

    /// How many of the tokens there are when the answer ends.
    fn ended(tokenizer: &Tokenizer, strings: &[&str], words: &[&str]) -> Option<usize> {
        let tokens: Vec<u32> = words
            .iter()
            .map(|word| tokenizer.id(word).unwrap())
            .collect();
        let strings = owned(strings);
        let stops = StopStrings::new(&strings, tokenizer);
        (1..=tokens.len()).find(|&length| stops.ends(&tokens[..length]))
    }

    #[test]
    fn a_string_may_span_tokens_or_share_them() {
        let tokenizer = byte_level();
        let ended = |strings: &[&str], words: &[&str]| ended(&tokenizer, strings, words);
        assert_eq!(ended(&["\n"], &["a", "Ċ", "b"]), Some(2));
        assert_eq!(ended(&["\n"], &["a", "aĊb", "b"]), Some(2));
        assert_eq!(ended(&["\n\n"], &["a", "Ċ", "Ċ", "b"]), Some(3));
        assert_eq!(ended(&["\n\n"], &["aĊb", "ĊĊ", "b"]), Some(2));
        assert_eq!(ended(&["\nQ:"], &["a", "ĊĊ", "Q", ":", "b"]), Some(4));
        assert_eq!(ended(&["\nQ:"], &["ĊQ", "Q:", "ĊQ", ":"]), Some(4));
        assert_eq!(ended(&["Q:", "b"], &["a", "Q", "b", ":"]), Some(3));
        assert_eq!(ended(&["a a"], &["Ġa", "Ġ", "Ġa", "Ġa"]), Some(4));
        assert_eq!(ended(&[" "], &["Ġa"]), Some(1));
        assert_eq!(ended(&["\n"], &["a", "b"]), None);
        assert_eq!(ended(&[], &["a", "b", END]), None);
    }

    #[test]
    fn a_special_token_is_a_string_too() {
        for tokenizer in [byte_level(), pieces(), metaspace()] {
            assert_eq!(ended(&tokenizer, &[END], &["a", "b", END, "a"]), Some(3));
            // Special tokens in between are not in the text.
            let words = ["Q", END, END, ":", "a"];
            assert_eq!(ended(&tokenizer, &["Q:"], &words), Some(4));
            let words = ["Q"].iter().chain(&[END; 40]).chain(&[":", "a"]);
            let words: Vec<&str> = words.copied().collect();
            assert_eq!(ended(&tokenizer, &["Q:"], &words), Some(42));
        }
    }

    #[test]
    fn half_a_character_is_waited_for() {
        let tokenizer = byte_level();
        assert_eq!(ended(&tokenizer, &["é"], &["a", "Ã", "©", "a"]), Some(3));
        assert_eq!(ended(&tokenizer, &["é"], &["a", "Ã", "Ã©", "a"]), Some(3));
        assert_eq!(ended(&tokenizer, &["日a"], &["æ", "Ĺ", "¥", "a"]), Some(4));
        assert_eq!(ended(&tokenizer, &["a"], &["æ", "Ĺ", "a"]), Some(3));
        assert_eq!(ended(&tokenizer, &["Ã"], &["Ã", "©", "Ã"]), None);
        let tokenizer = pieces();
        let words = ["a", "<0xC3>", "<0xA9>", "a"];
        assert_eq!(ended(&tokenizer, &["é"], &words), Some(3));
        let words = ["<0xE6>", "<0x97>", "<0xA5>", "<0xC3>", "<0xA9>"];
        assert_eq!(ended(&tokenizer, &["日é"], &words), Some(5));
    }

    #[test]
    fn a_string_is_found_at_the_end_of_a_long_answer() {
        let after = |before: &[&'static str], words: &[&'static str]| [before, words].concat();
        let tokenizer = byte_level();
        let words = after(&["b"; 50], &["a", "Ġ"].repeat(8)[..15]);
        assert_eq!(ended(&tokenizer, &["a a a a a a a a"], &words), Some(65));
        // Bytes that are decoded together, of which the last few begin inside a character.
        let tokenizer = pieces();
        for run in 15..25 {
            let words = after(&["<0xC3>", "<0xA9>"].repeat(run), &["a", "a", "a", "b"]);
            for shift in 0..2 {
                let words = after(&["b", "a"][..shift], &words);
                let end = Some(words.len());
                assert_eq!(ended(&tokenizer, &["éaaab"], &words), end);
                assert_eq!(ended(&tokenizer, &["ééaaab"], &words), end);
            }
        }
    }

    /// Whatever the tokens, an answer ends where its whole text first contains a string.
    #[test]
    fn the_last_tokens_tell_as_much_as_all() {
        let strings: [&[&str]; 10] = [
            &["\n"],
            &["\n\n"],
            &["Q:"],
            &[" Q"],
            &["a b", "b a"],
            &["é"],
            &["éé"],
            &["日é", "é日"],
            &["a a a a a a a a"],
            &[":::"],
        ];
        let mut random = Random(3);
        let mut late = 0;
        for tokenizer in [byte_level(), pieces(), metaspace()] {
            for strings in strings {
                let strings = owned(strings);
                let stops = StopStrings::new(&strings, &tokenizer);
                for _ in 0..60 {
                    // Runs of few tokens, so that strings occur and bytes make characters.
                    let mut tokens: Vec<u32> = Vec::new();
                    while tokens.len() < 80 {
                        let first = random.below(tokenizer.vocabulary() as u64) as u32;
                        let several = 1 + random.below(3) as u32;
                        let vocabulary = tokenizer.vocabulary() as u32;
                        tokens.extend((first..first + several).map(|token| token % vocabulary));
                    }
                    for length in 1..=tokens.len() {
                        let answer = &tokens[..length];
                        let text = tokenizer.decode_untrimmed(answer).unwrap();
                        let contained = strings.iter().any(|string| text.contains(string));
                        assert_eq!(stops.ends(answer), contained, "{text:?} {strings:?}");
                        if contained {
                            late += usize::from(length > 20);
                            break;
                        }
                    }
                }
            }
        }
        assert!(late > 50, "{late}");
    }

    #[test]
    fn an_answer_is_cut_before_its_stop() {
        let tokenizer = byte_level();
        let assembled = |words: &[&str], strings: &[&str]| {
            let token = |word: &&str| crate::reader::TokenLikelihood {
                id: tokenizer.id(word).unwrap(),
                log_probability: -1.0,
                shares: Vec::new(),
            };
            let likelihood = crate::reader::Likelihood {
                log_likelihood: -2.5,
                posterior: Vec::new(),
                tokens: words.iter().map(token).collect(),
            };
            let answer = assemble("?", &[], likelihood, &tokenizer, &owned(strings)).unwrap();
            assert_eq!(answer.log_likelihood, -2.5);
            assert_eq!(answer.tokens.len(), words.len());
            let texts = answer.tokens.into_iter().map(|token| token.text);
            (answer.text, texts.collect::<Vec<_>>())
        };
        let expect = |words: &[&str], strings: &[&str], text: &str, texts: &[&str]| {
            assert_eq!(assembled(words, strings), (text.to_owned(), owned(texts)));
        };
        expect(&["Ġa", "b", "Ċ"], &["\n"], "ab", &["a", "b", ""]);
        expect(&["b", "aĊb"], &["\n"], "ba", &["b", "a"]);
        expect(
            &["a", "ĊĊ", "Q", ":"],
            &["\nQ:", "Q:"],
            "a",
            &["a", "", "", ""],
        );
        expect(
            &["a", "Q", "b", "ĊQ", ":"],
            &["Q:"],
            "aQb",
            &["a", "Q", "b", "", ""],
        );
        expect(&["Ċ"], &["\n"], "", &[""]);
        expect(
            &["Ã", "©", "Ã", "©", "Ċ"],
            &["\n"],
            "éé",
            &["", "é", "", "é", ""],
        );
        expect(&["a", "Ã", "©"], &["é"], "a", &["a", "", ""]);
        // Without a string in it, and without strings, the whole text remains.
        expect(&["a", "aĊb", END], &["Q"], "aa\nb", &["a", "a\nb", ""]);
        expect(&["a", "aĊb", END], &[], "aa\nb", &["a", "a\nb", ""]);
    }
}
