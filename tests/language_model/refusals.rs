//! Files that are no models, and models that cannot answer: each error says what to do.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn_rag::{
    core::{Error as CoreError, checkpoint::gguf::GgufError},
    generate::{Error, PromptPart, Template, TemplateError, generator::fixtures},
    prelude::*,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::{
    self, Kind, MODELS, N_DOCS, QUESTIONS, cpu,
    errors::{refuses, says},
};

/// A Llama of two layers whose texts have at most `positions` tokens.
fn tiny(positions: usize) -> LanguageModel {
    let config = fixtures::changed(&common::generator_config(Kind::Llama), |fields| {
        fields["max_position_embeddings"] = json!(positions);
    });
    LanguageModel {
        generator: fixtures::seeded(config.init(&cpu()).unwrap(), 3),
        tokenizer: common::generator_tokenizer(Kind::Llama),
        generation: config.generation(),
        template: Template::plain(),
        config,
    }
}

fn rag(model: LanguageModel) -> Result<Rag, Error> {
    let encoder = common::context_encoder(7);
    let knowledge = common::knowledge(&encoder);
    Rag::from_parts(
        Retriever::new(encoder.clone(), encoder, knowledge, N_DOCS).unwrap(),
        model,
    )
}

/// A saved model to spoil.
struct Saved(TempDir);

impl Saved {
    fn new() -> Self {
        let saved = Self(tempfile::tempdir().unwrap());
        tiny(400).save(saved.path()).unwrap();
        saved
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("model")
    }

    fn load(&self) -> Result<LanguageModel, Error> {
        LanguageModel::load(self.path(), &cpu())
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path().join(file);
        let mut fields = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut fields);
        fs::write(&path, fields.to_string()).unwrap();
    }
}

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/gguf")
        .join(file)
}

#[test]
fn what_is_saved_loads() {
    let saved = Saved::new();
    let [before, after] = [tiny(400), saved.load().unwrap()];
    assert_eq!(before.config, after.config);
    assert_eq!(before.template, after.template);
    assert_eq!(before.generation, after.generation);
    for question in QUESTIONS {
        let [before, after] =
            [before.clone(), after.clone()].map(|model| rag(model).unwrap().ask(question).unwrap());
        assert_eq!(before, after);
    }
}

#[test]
fn a_path_that_is_no_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let load = |path: PathBuf| LanguageModel::load(path, &cpu());
    refuses!(
        load(folder.path().join("absent.gguf")),
        Error::Core(CoreError::Io { .. }),
        "absent.gguf",
        "check the name"
    );
    refuses!(
        load(folder.path().to_owned()),
        Error::Core(CoreError::MissingFile { .. }),
        "config.json",
        "give a checkpoint folder"
    );
    let around = tempfile::tempdir().unwrap();
    fs::write(around.path().join("small.gguf"), "").unwrap();
    refuses!(
        load(around.path().to_owned()),
        Error::Core(CoreError::MissingFile { .. }),
        "small.gguf",
        "give that file"
    );
    let saved = Saved::new();
    let text = folder.path().join("model.gguf");
    fs::write(&text, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    for path in [text, saved.path().join("model.safetensors")] {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        refuses!(
            load(path),
            Error::Core(CoreError::Gguf {
                source: GgufError::Magic { .. },
                ..
            }),
            &name,
            "is it a model in the GGUF format"
        );
    }
    // Tensors without a model around them.
    refuses!(
        load(golden("blocks.gguf")),
        Error::Core(CoreError::Gguf { .. }),
        "blocks.gguf"
    );
}

#[test]
fn a_truncated_gguf_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    for model in ["pairs.gguf", "pieces.gguf"] {
        let whole = fs::read(golden(model)).unwrap();
        fs::write(&path, &whole).unwrap();
        LanguageModel::load(&path, &cpu()).unwrap();
        let length = whole.len();
        // Less than an alignment may be padding.
        for kept in [0, 3, 4, 8, 24, length / 4, length / 2, length - 64] {
            fs::write(&path, &whole[..kept]).unwrap();
            refuses!(
                LanguageModel::load(&path, &cpu()),
                Error::Core(CoreError::Gguf { .. }),
                "cut.gguf"
            );
        }
        fs::write(&path, &whole[..length - 64]).unwrap();
        refuses!(
            LanguageModel::load(&path, &cpu()),
            Error::Core(CoreError::Gguf {
                source: GgufError::Truncated { .. },
                ..
            }),
            "copy or download it again"
        );
    }
}

#[test]
fn a_folder_without_one_of_its_files_is_refused() {
    for (file, parts) in [
        ("tokenizer.json", ["tokenizer.json", "save_pretrained"]),
        (
            "model.safetensors",
            ["model.safetensors", "pytorch_model.bin"],
        ),
    ] {
        let saved = Saved::new();
        fs::remove_file(saved.path().join(file)).unwrap();
        refuses!(
            saved.load(),
            Error::Core(CoreError::MissingFile { .. }),
            parts[0],
            parts[1],
            "give a checkpoint folder"
        );
    }
    // What may be missing: then the configuration says what ends an answer, and the prompt is plain.
    let saved = Saved::new();
    for file in ["generation_config.json", "tokenizer_config.json"] {
        fs::remove_file(saved.path().join(file)).unwrap();
    }
    rag(saved.load().unwrap())
        .unwrap()
        .ask(QUESTIONS[0])
        .unwrap();
}

#[test]
fn an_unknown_architecture_is_refused_with_those_that_are_known() {
    let saved = Saved::new();
    // The second reads images too.
    for unknown in ["gpt2", "gemma3"] {
        saved.change("config.json", |config| {
            config["model_type"] = json!(unknown)
        });
        refuses!(
            saved.load(),
            Error::Core(CoreError::Config { .. }),
            "config.json",
            unknown,
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "gemma2",
            "gemma3_text"
        );
    }
}

#[test]
fn a_template_without_the_passage_is_refused() {
    let deaf = "{% for message in messages %}{{ message.role }}{% endfor %}";
    let dropped = |result: Result<Rag, Error>| {
        refuses!(
            result,
            Error::Template(TemplateError::Dropped {
                part: PromptPart::Passage
            }),
            "leaves out the passage",
            "give one that writes it"
        );
    };
    let mut model = tiny(400);
    model.template = Template::chat(deaf);
    dropped(rag(model));
    dropped(rag(tiny(400)).unwrap().with_template(Template::chat(deaf)));
    // As a folder has it.
    let saved = Saved::new();
    saved.change("tokenizer_config.json", |settings| {
        settings["chat_template"] = json!(deaf);
    });
    dropped(rag(saved.load().unwrap()));
}

#[test]
fn a_prompt_longer_than_the_window_is_refused() {
    for model in MODELS {
        let rag = rag(tiny(48)).unwrap().with_model(model);
        refuses!(
            rag.ask(&"who wrote ".repeat(8)),
            Error::QuestionTooLong { longest: 48, .. },
            "ask a shorter question"
        );
        // The passages are cut to the window, which leaves no room for the answer.
        refuses!(
            rag.ask("rain"),
            Error::AnswerTooLong { tokens: 64, .. },
            "lower max_new_tokens"
        );
        let generation = (rag.generation().clone()).with_max_new_tokens(8);
        let rag = (rag.with_generation(generation)).with_max_combined_length(40);
        rag.ask("rain").unwrap();
        // With the space before it and the end token, one more than fits after 40.
        let candidate = "S".repeat(8);
        says(
            &rag.score("rain", &[&candidate]).unwrap_err(),
            &["10 tokens", "shorten the candidate"],
        );
        rag.score("rain", &[&candidate[1..]]).unwrap();
    }
}

/// Also into a folder in which a chat template stands by itself.
#[test]
fn a_template_with_settings_of_its_own_is_saved() {
    let saved = Saved::new();
    let stale = "{% for message in messages %}{{ message.content }}{% endfor %}";
    fs::write(saved.path().join("chat_template.jinja"), stale).unwrap();
    let mut model = saved.load().unwrap();
    assert_eq!(model.template.source(), Some(stale));
    let own = [
        Template::plain().with_between("\nQ: ").with_lead(""),
        Template::chat(stale).with_system("Answer."),
        Template::plain(),
    ];
    for template in own {
        model.template = template.clone();
        model.save(saved.path()).unwrap();
        assert_eq!(saved.load().unwrap().template, template);
    }
}
