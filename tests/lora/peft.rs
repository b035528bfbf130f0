//! Folders in PEFT's layout, and adapters exchanged with PEFT: `tests/interop/run.sh` runs
//! `save_for_peft` and `load_from_peft` with `tests/interop/lora_peft.py` between them; alone these two
//! are skipped.

use std::{collections::BTreeMap, fs, path::PathBuf};

use burn_rag::{
    core,
    prelude::*,
    train::{
        Error,
        lora::{self, Lora, LoraConfig},
    },
};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    CONTEXTS, DECODED, adapted,
    common::{self, KINDS, Kind, cpu},
    difference, everywhere, mask, outputs, rag,
};

#[test]
fn saved_adapters_load_onto_the_base_and_train_on() {
    for kind in KINDS {
        let lora = everywhere(kind);
        let applied = adapted(&lora, rag(kind));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapters");
        lora.save(&applied, &path).unwrap();
        let (read, loaded) = Lora::load(&path, rag(kind)).unwrap();
        assert_eq!(read, lora);
        assert_eq!(outputs(&loaded), outputs(&applied));
        let [found, expected] = [&loaded, &applied].map(|rag| lora::trainable(rag.generator()));
        assert_eq!(found, expected);
    }
}

/// The names and shapes of PEFT: B is `[d_output, r]`, A is `[r, d_input]`.
#[test]
fn folders_are_laid_out_as_by_peft() {
    laid_out(Kind::Bart, "SEQ_2_SEQ_LM", "encoder.layers.1.fc1", [32, 48]);
    laid_out(
        Kind::Llama,
        "CAUSAL_LM",
        "layers.1.self_attn.k_proj",
        [32, 16],
    );
    laid_out(Kind::Qwen2, "CAUSAL_LM", "layers.0.mlp.up_proj", [32, 48]);
}

fn laid_out(kind: Kind, task_type: &str, target: &str, [d_input, d_output]: [usize; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let config = LoraConfig {
        rank: 3,
        target_modules: Some(vec![target.into()]),
        base_model: Some("an/example".into()),
        ..LoraConfig::default()
    };
    let lora = Lora {
        generator: Some(config),
        question_encoder: None,
    };
    let applied = lora.apply(rag(kind)).unwrap();
    lora.save(&applied, folder.path().join("adapters")).unwrap();
    let files = common::files(&folder.path().join("adapters"));
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        [
            "generator/adapter_config.json",
            "generator/adapter_model.safetensors"
        ]
    );
    let config: Value = serde_json::from_slice(&files["generator/adapter_config.json"]).unwrap();
    let expected = json!({
        "peft_type": "LORA", "task_type": task_type, "r": 3, "lora_alpha": 8.0,
        "target_modules": [target],
        "base_model_name_or_path": "an/example",
        "use_rslora": false, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": false,
        "init_lora_weights": true, "inference_mode": true,
    });
    assert_eq!(config, expected);
    let tensors = SafeTensors::deserialize(&files["generator/adapter_model.safetensors"]).unwrap();
    let shapes: BTreeMap<_, _> = tensors
        .iter()
        .map(|(name, view)| (name, view.shape().to_vec()))
        .collect();
    let module = format!("base_model.model.model.{target}");
    let [a, b] = ["A", "B"].map(|factor| format!("{module}.lora_{factor}.weight"));
    assert_eq!(
        shapes,
        BTreeMap::from([
            (a.as_str(), vec![3, d_input]),
            (b.as_str(), vec![d_output, 3])
        ])
    );
}

/// Qwen3's heads are wider here, and it has no `model.decoder`.
#[test]
fn adapters_of_another_decoder_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let lora = Lora {
        question_encoder: None,
        ..Lora::default()
    };
    let applied = lora.apply(rag(Kind::Llama)).unwrap();
    lora.save(&applied, folder.path()).unwrap();
    // Qwen2 has the same projections with biases, which adapters have nothing to do with.
    Lora::load(folder.path(), rag(Kind::Qwen2)).unwrap();
    let error = Lora::load(folder.path(), rag(Kind::Qwen3)).unwrap_err();
    let Error::Core(core::Error::Shape {
        name,
        expected,
        found,
    }) = &error
    else {
        panic!("{error}");
    };
    let module = "base_model.model.model.layers.0.self_attn.q_proj";
    assert_eq!(*name, format!("{module}.lora_B.weight"));
    assert_eq!((expected, found), (&vec![40, 8], &vec![32, 8]));
    let error = Lora::load(folder.path(), rag(Kind::Bart)).unwrap_err();
    let Error::Core(core::Error::UnknownTensors { names, .. }) = &error else {
        panic!("{error}");
    };
    assert!(
        names.contains(&format!("{module}.lora_A.weight")),
        "{error}"
    );
}

/// A folder's configuration, with one field changed.
#[test]
fn folders_that_do_not_fit_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let bart = rag(Kind::Bart);
    let on = |targets: [&str; 2]| LoraConfig {
        target_modules: Some(targets.map(str::to_owned).to_vec()),
        ..LoraConfig::default()
    };
    let lora = Lora {
        generator: Some(on(["q_proj", "v_proj"])),
        question_encoder: Some(on(["query", "value"])),
    };
    let applied = lora.apply(bart.clone()).unwrap();
    lora.save(&applied, folder.path().join("all")).unwrap();
    let path = folder.path().join("all/generator/adapter_config.json");
    let written: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let load = |field: &str, value: Value, rag: &Rag| {
        let mut config = written.clone();
        config[field] = value;
        fs::write(&path, config.to_string()).unwrap();
        Lora::load(folder.path().join("all"), rag.clone())
    };
    for (field, value) in [
        ("use_dora", json!(true)),
        ("bias", json!("lora_only")),
        ("fan_in_fan_out", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({"q_proj": 2})),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("peft_type", json!("IA3")),
    ] {
        let error = load(field, value, &bart).unwrap_err();
        let Error::Core(core::Error::Config { field: named, .. }) = &error else {
            panic!("{error}");
        };
        assert_eq!(named, field);
    }
    let error = load("r", json!(4), &bart).unwrap_err();
    let Error::Core(core::Error::Shape {
        name,
        expected,
        found,
    }) = &error
    else {
        panic!("{error}");
    };
    let module = "base_model.model.model.encoder.layers.0.self_attn.q_proj";
    assert_eq!(*name, format!("{module}.lora_B.weight"));
    assert_eq!((expected, found), (&vec![32, 4], &vec![32, 8]));

    let error = load("r", json!(8), &rag(Kind::T5)).unwrap_err();
    let Error::Core(core::Error::UnknownTensors { names, .. }) = &error else {
        panic!("{error}");
    };
    assert!(
        names.contains(&format!("{module}.lora_A.weight")),
        "{error}"
    );

    // Settings that are off may be named; dropout is PEFT's own.
    for (field, value) in [
        ("lora_dropout", json!(0.1)),
        ("use_dora", json!(null)),
        ("alpha_pattern", json!({})),
    ] {
        assert_eq!(load(field, value, &bart).unwrap().0, lora);
    }
    // The usual targets behind a pattern; others than the tensors say.
    let pattern = json!(".*\\.(q|v)_proj");
    let (read, _) = load("target_modules", pattern, &bart).unwrap();
    assert_eq!(read.generator.unwrap().target_modules, None);
    let (read, _) = load("target_modules", json!(["k_proj"]), &bart).unwrap();
    let targets = read.generator.unwrap().target_modules.unwrap();
    assert_eq!(
        (targets.len(), targets[0].as_str()),
        (12, &module["base_model.model.".len()..])
    );

    let error = Lora::load(folder.path().join("none"), bart).unwrap_err();
    assert!(
        matches!(error, Error::Core(core::Error::MissingFile { .. })),
        "{error}"
    );
}

/// Inputs, and what one side made of them; the other must find the same.
#[derive(Serialize, Deserialize)]
struct Case {
    context_ids: Vec<Vec<i64>>,
    context_mask: Vec<Vec<i64>>,
    question_mask: Vec<Vec<i64>>,
    decoder_ids: Vec<Vec<i64>>,
    logits: Vec<f32>,
    question_vectors: Vec<f32>,
}

#[test]
fn save_for_peft() {
    let Some(folder) = exchanged() else { return };
    for kind in KINDS {
        let folder = folder.join(format!("{kind:?}"));
        let base = rag(kind);
        let lora = everywhere(kind);
        let applied = adapted(&lora, base.clone());
        base.save(folder.join("base")).unwrap();
        lora.save(&applied, folder.join("ours")).unwrap();
        lora::merge(applied.clone())
            .save(folder.join("merged"))
            .unwrap();
        let [logits, question_vectors] = outputs(&applied);
        let case = Case {
            context_ids: CONTEXTS.map(Vec::from).to_vec(),
            context_mask: mask(true),
            question_mask: mask(false),
            decoder_ids: DECODED.map(Vec::from).to_vec(),
            logits,
            question_vectors,
        };
        fs::write(
            folder.join("ours.json"),
            serde_json::to_string(&case).unwrap(),
        )
        .unwrap();
    }
}

#[test]
fn load_from_peft() {
    let Some(folder) = exchanged() else { return };
    for kind in KINDS {
        let folder = folder.join(format!("{kind:?}"));
        let knowledge = rag(kind).retriever.local().unwrap().clone();
        let base = Rag::load(folder.join("base"), knowledge, &cpu()).unwrap();
        let (_, applied) = Lora::load(folder.join("theirs"), base.clone()).unwrap();
        let text = fs::read_to_string(folder.join("theirs.json")).unwrap();
        let case: Case = serde_json::from_str(&text).unwrap();
        let expected = [case.logits, case.question_vectors];
        for (found, expected) in outputs(&applied).iter().zip(&expected) {
            assert!(difference(found, expected) <= 1e-4, "{kind:?}");
        }
        for (base, expected) in outputs(&base).iter().zip(&expected) {
            assert!(
                difference(base, expected) > 1e-2,
                "{kind:?}: they change nothing"
            );
        }
        println!("{kind:?}: the adapters of PEFT load and agree");
    }
}

fn exchanged() -> Option<PathBuf> {
    let folder = std::env::var_os("RAG_LORA_DIR").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: RAG_LORA_DIR is not set; tests/interop/run.sh sets it");
    }
    folder
}
