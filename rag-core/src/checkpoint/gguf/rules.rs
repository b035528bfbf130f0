//! How llama.cpp splits text into words before it merges byte pairs.
//!
//! A GGUF file only names its rules, in `tokenizer.ggml.pre`; the rules themselves are in llama.cpp's source. This
//! file has some of them.

/// The rules for one or more values of `tokenizer.ggml.pre`.
pub(super) struct Rules {
    /// llama.cpp's names of these rules.
    names: &'static [&'static str],
    /// Regular expressions. Each splits the pieces that the ones before have left.
    pub patterns: &'static [&'static str],
    /// Whether GPT-2's expression then splits the pieces.
    pub gpt2: bool,
    /// Whether a word that is itself a token becomes that token without merges.
    pub ignore_merges: bool,
    /// Whether a text begins with `bos` where the metadata do not say.
    pub add_bos: bool,
    /// Whether text is brought into Unicode normalization form C first.
    pub nfc: bool,
}

impl Rules {
    /// The rules that llama.cpp knows under `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        RULES.iter().find(|rules| rules.names.contains(&name))
    }

    /// All names, separated by commas.
    pub fn names() -> String {
        let names: Vec<_> = RULES
            .iter()
            .flat_map(|rules| rules.names)
            .copied()
            .collect();
        names.join(", ")
    }
}

static RULES: [Rules; 6] = [
    Rules {
        names: &["smollm", "refact", "starcoder", "command-r"],
        patterns: &[r"\p{N}"],
        gpt2: true,
        ignore_merges: false,
        add_bos: false,
        nfc: false,
    },
    Rules {
        names: &["qwen2", "deepseek-r1-qwen"],
        patterns: &[QWEN2],
        gpt2: false,
        ignore_merges: false,
        add_bos: false,
        // llama.cpp leaves this out. Qwen's own tokenizer, with which the model was trained, does it.
        nfc: true,
    },
    Rules {
        names: &["llama-bpe", "llama3", "llama-v3"],
        patterns: &[LLAMA3],
        gpt2: false,
        ignore_merges: true,
        add_bos: true,
        nfc: false,
    },
    Rules {
        names: &["smaug-bpe"],
        patterns: &[LLAMA3],
        gpt2: false,
        ignore_merges: false,
        add_bos: false,
        nfc: false,
    },
    Rules {
        names: &["gpt-2", "phi-2"],
        patterns: &[],
        gpt2: true,
        ignore_merges: false,
        add_bos: false,
        nfc: false,
    },
    Rules {
        names: &["tekken"],
        patterns: &[TEKKEN],
        gpt2: false,
        ignore_merges: true,
        add_bos: true,
        nfc: false,
    },
];

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
