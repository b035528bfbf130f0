#![allow(clippy::unwrap_used)]

use std::path::Path;

use bytes::Bytes;
use serde_json::json;

use super::*;

/// A GGUF file made by hand.
#[derive(Clone, Default)]
struct File {
    entries: Vec<Vec<u8>>,
    infos: Vec<Vec<u8>>,
    data: Vec<u8>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl File {
    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        (self.entries).push([&text(key), &kind.to_le_bytes()[..], value].concat());
        self
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.entry(key, 8, &text(value))
    }

    fn count(self, key: &str, value: u32) -> Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    fn number(self, key: &str, value: f32) -> Self {
        self.entry(key, 6, &value.to_le_bytes())
    }

    fn list(self, key: &str, kind: u32, items: &[Vec<u8>]) -> Self {
        let head = [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()].concat();
        self.entry(key, 9, &[head, items.concat()].concat())
    }

    fn texts(self, key: &str, items: &[&str]) -> Self {
        let items: Vec<_> = items.iter().map(|item| text(item)).collect();
        self.list(key, 8, &items)
    }

    fn types(self, items: &[i32]) -> Self {
        let items: Vec<_> = items
            .iter()
            .map(|item| item.to_le_bytes().to_vec())
            .collect();
        self.list("tokenizer.ggml.token_type", 5, &items)
    }

    /// A tensor of type F32; `shape` as PyTorch has it.
    fn tensor(mut self, name: &str, shape: &[usize], numbers: &[f32]) -> Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut info = [text(name), (shape.len() as u32).to_le_bytes().to_vec()].concat();
        for dimension in shape.iter().rev() {
            info.extend((*dimension as u64).to_le_bytes());
        }
        info.extend(0_u32.to_le_bytes());
        info.extend((self.data.len() as u64).to_le_bytes());
        self.infos.push(info);
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.infos.len() as u64).to_le_bytes());
        file.extend((self.entries.len() as u64).to_le_bytes());
        file.extend(self.entries.concat());
        file.extend(self.infos.concat());
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(&self.data);
        file
    }

    fn open(&self) -> Result<Gguf> {
        Gguf::from_bytes(Bytes::from(self.bytes()), "hand.gguf")
    }
}

/// Two heads of queries of size 4, one of keys, width 8.
fn model(architecture: &str) -> File {
    let key = |key: &str| format!("{architecture}.{key}");
    (File::default())
        .text("general.architecture", architecture)
        .count(&key("block_count"), 2)
        .count(&key("context_length"), 64)
        .count(&key("embedding_length"), 8)
        .count(&key("feed_forward_length"), 12)
        .count(&key("attention.head_count"), 2)
        .count(&key("attention.head_count_kv"), 1)
        .number(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .number(&key("rope.freq_base"), 500_000.0)
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "smollm")
        .texts(
            "tokenizer.ggml.tokens",
            &["a", "b", "<|im_end|>", "</s>", "ab"],
        )
        .texts("tokenizer.ggml.merges", &["a b"])
        .types(&[1, 1, 3, 3, 1])
        .count("tokenizer.ggml.eos_token_id", 3)
        .tensor("token_embd.weight", &[6, 8], &[0.0; 48])
}

fn problem<T>(result: Result<T>) -> GgufError {
    match result {
        Err(Error::Gguf { source, .. }) => source,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("no error"),
    }
}

#[test]
fn every_block_type_is_what_gguf_py_computes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/gguf");
    let gguf = Gguf::open(folder.join("blocks.gguf")).unwrap();
    let container = &gguf.container;
    let names: Vec<_> = container
        .descriptions()
        .map(|found| found.unwrap().name)
        .collect();
    let mut types = 0;
    for name in names.iter().filter_map(|name| name.strip_prefix("blocks.")) {
        let read = |name: String| {
            let found = container.description(&name).unwrap().unwrap();
            assert_eq!(found.shape, [3, 256]);
            let mut numbers = vec![0.0; 3 * 256];
            dequantize(found.kind, &container.tensor_bytes(&found), &mut numbers);
            (found.kind, numbers)
        };
        let (kind, found) = read(format!("blocks.{name}"));
        let (_, expected) = read(format!("expected.{name}"));
        assert_eq!(kind.name(), name);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{name} {i}");
        }
        types += 1;
    }
    assert_eq!(types, 11);
}

#[test]
fn halves_are_exact() {
    for bits in 0..=u16::MAX {
        let (sign, exponent, fraction) = (bits >> 15, (bits >> 10) & 31, f64::from(bits & 1023));
        let magnitude = match exponent {
            0 => fraction * 2_f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1.0 + fraction / 1024.0) * 2_f64.powi(i32::from(exponent) - 15),
        };
        let expected = if sign == 1 { -magnitude } else { magnitude } as f32;
        let found = half::f16(bits.to_le_bytes());
        assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan());
    }
}

#[test]
fn the_configuration_is_that_of_config_json() {
    let config = model("llama").open().unwrap().config().unwrap();
    let expected = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": 12,
        "vocab_size": 6, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
        "rope_scaling": null, "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false,
        "hidden_act": "silu", "sliding_window": null,
        "bos_token_id": null, "eos_token_id": [3, 2], "pad_token_id": null,
    });
    assert_eq!(config, expected);
    let other = (model("qwen2"))
        .count("qwen2.attention.key_length", 6)
        .text("qwen2.rope.scaling.type", "yarn")
        .number("qwen2.rope.scaling.factor", 4.0)
        .count("qwen2.rope.scaling.original_context_length", 32)
        .tensor("output.weight", &[6, 8], &[0.0; 48]);
    let config = other.open().unwrap().config().unwrap();
    assert_eq!(config["model_type"], "qwen2");
    assert_eq!(config["head_dim"], 6);
    assert_eq!(config["tie_word_embeddings"], false);
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    assert_eq!(config["rope_scaling"], yarn);
    let gemma = model("gemma3").count("gemma3.attention.sliding_window", 16);
    let config = gemma.open().unwrap().config().unwrap();
    assert_eq!(config["query_pre_attn_scalar"], 4);
    assert_eq!(config["rope_local_base_freq"], 10_000.0);
    assert_eq!(config["sliding_window"], 16);
    assert_eq!(config["hidden_activation"], "gelu_pytorch_tanh");
    assert_eq!(config["sliding_window_pattern"], 6);
    let config = model("gemma3").open().unwrap().config().unwrap();
    assert_eq!(config["sliding_window_pattern"], 1);
    let config = model("gemma2").open().unwrap().config().unwrap();
    for by_default in [
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "sliding_window",
    ] {
        assert_eq!(config.get(by_default), None, "{by_default}");
    }
    let capped = (model("gemma2"))
        .number("gemma2.attn_logit_softcapping", 5.0)
        .number("gemma2.final_logit_softcapping", 3.5)
        .count("gemma2.attention.sliding_window", 16)
        .count("gemma2.attention.sliding_window_pattern", 3);
    let config = capped.open().unwrap().config().unwrap();
    assert_eq!(config["attn_logit_softcapping"], 5.0);
    assert_eq!(config["final_logit_softcapping"], 3.5);
    assert_eq!(config["sliding_window"], 16);
    assert_eq!(config["sliding_window_pattern"], 3);
}

#[test]
fn values_that_make_no_model_are_named() {
    let heads = |heads: u32| {
        (File::default())
            .text("general.architecture", "llama")
            .count("llama.embedding_length", 8)
            .count("llama.attention.head_count", heads)
            .tensor("token_embd.weight", &[6, 8], &[0.0; 48])
    };
    for (file, key) in [
        (heads(0), "llama.attention.head_count"),
        (heads(3), "llama.attention.head_count"),
        (heads(8), "llama.attention.head_count_kv"),
        (heads(2), "llama.attention.layer_norm_rms_epsilon"),
        (
            heads(2).count("llama.attention.head_count_kv", 0),
            "llama.attention.head_count_kv",
        ),
        (
            heads(2).text("llama.attention.key_length", "4"),
            "llama.attention.key_length",
        ),
    ] {
        match problem(file.open().unwrap().config()) {
            GgufError::Metadata { key: found, .. } => assert_eq!(found, key),
            other => panic!("{other}"),
        }
    }
    for file in [
        model("llama").count("llama.expert_count", 8),
        model("llama").count("llama.rope.dimension_count", 2),
        model("mistral3").number("mistral3.attention.temperature_scale", 0.1),
        model("llama")
            .text("llama.rope.scaling.type", "longrope")
            .number("llama.rope.scaling.factor", 2.0),
    ] {
        let error = problem(file.open().unwrap().config());
        assert!(matches!(error, GgufError::Unsupported { .. }), "{error}");
    }
}

#[test]
fn llama_3_is_known_by_its_factors() {
    // theta 500,000 and heads of 64, factor 32, as the converter computes them.
    let factors: Vec<f32> = (0..32)
        .map(|i| {
            let frequency = 1.0 / 500_000_f32.powf(2.0 * i as f32 / 64.0);
            let wavelength = 2.0 * std::f32::consts::PI / frequency;
            match wavelength {
                _ if wavelength < 2048.0 => 1.0,
                _ if wavelength > 8192.0 => 32.0,
                _ => {
                    let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                    1.0 / ((1.0 - smooth) / 32.0 + smooth)
                }
            }
        })
        .collect();
    let file = |factors: &[f32]| {
        (model("llama").count("llama.attention.key_length", 64))
            .tensor("rope_freqs.weight", &[factors.len()], factors)
            .open()
            .unwrap()
    };
    let gguf = file(&factors);
    assert_eq!(gguf.rope_factors().unwrap().unwrap(), factors);
    let expected = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    assert_eq!(gguf.config().unwrap()["rope_scaling"], expected);
    // Others are listed one by one.
    let mut others = factors.clone();
    others[3] = 1.5;
    let scaling = &file(&others).config().unwrap()["rope_scaling"];
    assert_eq!(scaling["rope_type"], "longrope");
    assert_eq!(scaling["long_factor"][3], 1.5);
    assert!(matches!(
        problem(file(&factors[1..]).config()),
        GgufError::Unsupported { .. }
    ));
    others[3] = 0.0;
    assert!(matches!(
        problem(file(&others).config()),
        GgufError::Damaged { .. }
    ));
    // They are no weights.
    assert_eq!(gguf.weights().unwrap().len(), 1);
}

#[test]
fn weights_have_transformers_names_and_order() {
    let rows: Vec<f32> = (0..8).flat_map(|row| [row as f32; 8]).collect();
    let file = |architecture: &str| {
        model(architecture)
            .tensor("blk.1.attn_q.weight", &[8, 8], &rows)
            .tensor("blk.1.attn_k.weight", &[4, 8], &rows[..32])
            .tensor("blk.1.attn_k.bias", &[4], &[0.0, 1.0, 2.0, 3.0])
            .tensor("blk.1.attn_v.weight", &[4, 8], &rows[..32])
            .tensor("blk.1.ffn_norm.weight", &[8], &[1.25; 8])
            .tensor("output_norm.weight", &[8], &[1.5; 8])
            .open()
            .unwrap()
    };
    let column = |weight: &Weight| -> Vec<f32> {
        let step = weight.columns();
        weight.to_f32().into_iter().step_by(step).collect()
    };
    for (architecture, moved) in [("llama", true), ("granite", true), ("qwen2", false)] {
        let gguf = file(architecture);
        let weights = gguf.weights().unwrap();
        let find = |name: &str| weights.iter().find(|weight| weight.name() == name).unwrap();
        let queries = find("model.layers.1.self_attn.q_proj.weight");
        let keys = find("model.layers.1.self_attn.k_proj.weight");
        let bias = find("model.layers.1.self_attn.k_proj.bias");
        let values = find("model.layers.1.self_attn.v_proj.weight");
        let straight = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let turned = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        let expected = if moved { turned } else { straight };
        assert_eq!(column(queries), expected);
        assert_eq!(column(keys), expected[..4]);
        assert_eq!(bias.to_f32(), expected[..4]);
        assert_eq!(bias.shape(), [4]);
        assert_eq!(column(values), straight[..4]);
        let mut two = [0.0; 16];
        queries.read_rows(1..3, &mut two);
        assert_eq!([two[0], two[8]], expected[1..3]);
        let norm = find("model.layers.1.post_attention_layernorm.weight");
        assert_eq!(norm.to_f32(), [1.25; 8]);
        find("model.norm.weight");
        find("model.embed_tokens.weight");
    }
    let weights = file("gemma2").weights().unwrap();
    let find = |name: &str| weights.iter().find(|weight| weight.name() == name).unwrap();
    let norm = find("model.layers.1.pre_feedforward_layernorm.weight");
    assert_eq!(norm.to_f32(), [0.25; 8]);
    assert_eq!(find("model.norm.weight").to_f32(), [0.5; 8]);
}

#[test]
fn many_rows_are_read_by_many_threads() {
    let numbers: Vec<f32> = (0..1500 * 700).map(|i| i as f32).collect();
    let file = model("qwen3").tensor("output.weight", &[1500, 700], &numbers);
    let weights = file.open().unwrap().weights().unwrap();
    let head = weights
        .iter()
        .find(|weight| weight.name() == "lm_head.weight")
        .unwrap();
    assert_eq!(head.to_f32(), numbers);
}

#[test]
fn what_is_not_supported_is_said_at_once() {
    let other = File::default()
        .text("general.architecture", "gpt-oss")
        .open();
    match problem(other) {
        GgufError::Architecture { found, known } => {
            assert_eq!(found, "gpt-oss");
            assert!(known.contains("qwen3"), "{known}");
        }
        other => panic!("{other}"),
    }
    let part = model("llama")
        .entry("split.count", 2, &3_u16.to_le_bytes())
        .open();
    assert!(matches!(problem(part), GgufError::Split { parts: 3 }));
    assert!(
        model("llama")
            .entry("split.count", 2, &1_u16.to_le_bytes())
            .open()
            .is_ok()
    );
    let none = File::default().open();
    assert!(matches!(problem(none), GgufError::Metadata { .. }));
    let unknown = model("llama").tensor("blk.0.attn_sinks.weight", &[8], &[0.0; 8]);
    let unknown = problem(unknown.open().unwrap().weights());
    assert!(matches!(unknown, GgufError::UnknownTensor { .. }));
    let mut newer = model("llama").bytes();
    for (version, good) in [
        (1, false),
        (2, true),
        (3, true),
        (4, false),
        (3 << 24, false),
    ] {
        newer[4..8].copy_from_slice(&u32::to_le_bytes(version));
        let opened = Gguf::from_bytes(Bytes::from(newer.clone()), "hand.gguf");
        assert_eq!(opened.is_ok(), good, "{version}");
    }
    // IQ4_XS.
    let mut quantized = model("llama");
    let place = quantized.infos[0].len() - 12;
    quantized.infos[0][place] = 23;
    let error = problem(quantized.open()).to_string();
    assert!(
        error.contains("token_embd.weight") && error.contains("IQ4_XS"),
        "{error}"
    );
    let zip = Gguf::from_bytes(Bytes::from_static(b"PK\x03\x04"), "model.zip");
    assert!(matches!(problem(zip), GgufError::Magic { .. }));
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(
        problem(Gguf::open(empty.path())),
        GgufError::Magic { .. }
    ));
    assert!(matches!(Gguf::open("nowhere.gguf"), Err(Error::Io { .. })));
}

#[test]
fn the_cause_of_an_error_is_its_source() {
    let error = model("gpt-oss").open().unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("gpt-oss"), "{cause}");
    let shown = error.to_string();
    assert!(
        shown.contains("hand.gguf") && !shown.contains(&cause),
        "{shown}"
    );
    assert_eq!(format!("{error:?}"), format!("{shown}: {cause}"));
}

#[test]
fn headers_that_contradict_themselves_are_damaged() {
    let damaged = |file: File| matches!(problem(file.open()), GgufError::Damaged { .. });
    let norm = |file: File| file.tensor("output_norm.weight", &[8], &[0.0; 8]);
    assert!(norm(model("llama")).open().is_ok());
    assert!(damaged(norm(norm(model("llama")))));
    assert!(damaged(model("llama").text("tokenizer.ggml.pre", "smollm")));
    assert!(damaged(model("llama").text("", "x")));
    assert!(damaged(model("llama").tensor("empty", &[0], &[])));
    // Each bit of an offset.
    for bit in 0..64 {
        let mut file = norm(model("llama"));
        let info = file.infos.last_mut().unwrap();
        let place = info.len() - 8 + bit / 8;
        info[place] ^= 1 << (bit % 8);
        assert!(damaged(file), "{bit}");
    }
    for alignment in [0, 3, 1 << 30] {
        let file = model("llama").count("general.alignment", alignment);
        assert!(matches!(problem(file.open()), GgufError::Metadata { .. }));
    }
    // A file cut anywhere.
    let whole = norm(model("llama")).bytes();
    for length in 0..whole.len() {
        let cut = Bytes::copy_from_slice(&whole[..length]);
        problem(Gguf::from_bytes(cut, "hand.gguf"));
    }
}

#[test]
fn unknown_rules_are_not_guessed() {
    let tokenizer = |model: &str, pre: Option<&str>| {
        let file = (File::default())
            .text("general.architecture", "llama")
            .text("tokenizer.ggml.model", model)
            .texts("tokenizer.ggml.tokens", &["a", "b", "ab"])
            .texts("tokenizer.ggml.merges", &["a b"]);
        let file = match pre {
            Some(pre) => file.text("tokenizer.ggml.pre", pre),
            None => file,
        };
        file.open().unwrap().tokenizer()
    };
    for pre in [None, Some("default"), Some("qwen35")] {
        match problem(tokenizer("gpt2", pre)) {
            GgufError::PreTokenizer { found, known } => {
                assert!(found.contains(pre.unwrap_or("nothing")));
                for name in ["smollm", "qwen2", "llama-bpe", "gpt-2", "tekken"] {
                    assert!(known.contains(name), "{known}");
                }
            }
            other => panic!("{other}"),
        }
    }
    assert!(matches!(
        problem(tokenizer("t5", None)),
        GgufError::Metadata { .. }
    ));
    let good = tokenizer("gpt2", Some("gpt-2")).unwrap();
    assert_eq!(
        good.tokenizer.encode("abb", true).unwrap().get_ids(),
        [2, 1]
    );
    assert_eq!(good.vocabulary, 3);
    // Scores are missing.
    assert!(matches!(
        problem(tokenizer("llama", None)),
        GgufError::Metadata { .. }
    ));
}

#[test]
fn marks_and_ends_are_those_of_the_file() {
    let file = (File::default())
        .text("general.architecture", "qwen3")
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "llama-bpe")
        .texts(
            "tokenizer.ggml.tokens",
            &["a", "<s>", "<|eot_id|>", "<think>", "", "<", "s", ">"],
        )
        .texts("tokenizer.ggml.merges", &[])
        .types(&[1, 3, 1, 4, 5, 1, 1, 1])
        .count("tokenizer.ggml.bos_token_id", 1)
        .count("tokenizer.ggml.eos_token_id", 99)
        .text("tokenizer.chat_template", "{{ messages }}");
    let gguf = file.open().unwrap();
    assert_eq!(gguf.chat_template().unwrap(), Some("{{ messages }}"));
    let mut found = gguf.tokenizer().unwrap();
    assert_eq!((found.bos, found.eos, found.eot), (Some(1), None, Some(2)));
    assert!(found.add_bos && !found.add_eos);
    assert_eq!(found.end_tokens, [2]);
    let ids = |found: &GgufTokenizer, special| {
        let encoding = found.tokenizer.encode("a<s><think>", special).unwrap();
        encoding.get_ids().to_vec()
    };
    assert_eq!(ids(&found, false), [0, 1, 3]);
    assert_eq!(ids(&found, true), [1, 0, 1, 3]);
    found.tokenizer.set_encode_special_tokens(true);
    assert_eq!(ids(&found, false), [0, 5, 6, 7, 3]);
    // A token that is there twice has no one id.
    let twice = (File::default())
        .text("general.architecture", "qwen3")
        .texts("tokenizer.ggml.tokens", &["a", "a"]);
    assert!(matches!(
        problem(twice.open().unwrap().tokenizer()),
        GgufError::Metadata { .. }
    ));
}
