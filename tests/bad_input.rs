//! Whatever is given, the answer is an answer or an error that says what to do, never a panic.

// Long because: the cases of each reader stand side by side, a few lines each, so that a missing one is seen.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn_rag::{
    burn::{
        module::{Module, ModuleMapper, Param},
        tensor::Tensor,
    },
    core::{Error as CoreError, Passage, Tokenizer, marginal::RagModel},
    generate::{
        Answer, Checkpoint, Error, Rag, RankBy, Threshold,
        decode::{Control, DecodeError, GenerationConfig},
        generator::fixtures,
    },
    retrieve::{
        Chunking, DocumentError, Documents, Embedder, EncoderConfig, EncoderError,
        Error as RetrieveError, IndexError, KnowledgeBase, KnowledgeError, RetrieverError,
        SkipReason, Storage, TextEncoder, build_knowledge_base, encoder::load_encoder,
    },
};
use common::{
    KINDS, Kind, MODELS, N_DOCS, POSITIONS, QUESTIONS, config, context_encoder,
    context_encoder_with, cpu,
    errors::{refuses, says},
    generator_tokenizer, knowledge, passages, question_tokenizer, rag,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A saved RAG to spoil.
struct Saved {
    folder: TempDir,
    knowledge: KnowledgeBase,
}

impl Saved {
    fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rag = rag(kind);
        rag.save(folder.path().join("rag")).unwrap();
        Self {
            knowledge: rag.retriever.local().unwrap().clone(),
            folder,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("rag")
    }

    fn load(&self) -> Result<Rag, Error> {
        Rag::load(self.path(), self.knowledge.clone(), &cpu())
    }

    fn change_config(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path().join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(&path, config.to_string()).unwrap();
    }

    fn change_tensors(&self, change: impl FnOnce(&mut Tensors)) {
        let path = self.path().join("model.safetensors");
        let mut tensors = read_tensors(&path);
        change(&mut tensors);
        let views = tensors.iter().map(|(name, (shape, bytes))| {
            (
                name.as_str(),
                TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        });
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    }
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn read_tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            (
                name.to_owned(),
                (view.shape().to_vec(), view.data().to_vec()),
            )
        })
        .collect()
}

/// The error of rag-core below the error of [`Rag::load`].
fn core(error: &Error) -> &CoreError {
    match error {
        Error::Core(error) | Error::Retrieve(RetrieveError::Core(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_folder_is_named() {
    let saved = Saved::new(Kind::T5);
    let folder = saved.folder.path().join("no-such-folder");
    let error = Rag::load(&folder, saved.knowledge, &cpu()).unwrap_err();
    assert!(matches!(
        core(&error),
        CoreError::Io { .. } | CoreError::MissingFile { .. }
    ));
    says(&error, &["no-such-folder"]);
    let error = TextEncoder::load(&folder, &cpu()).unwrap_err();
    assert!(matches!(error, RetrieveError::Core(_)));
    says(&error, &["no-such-folder"]);
    let error = KnowledgeBase::open(&folder).unwrap_err();
    assert!(matches!(error, RetrieveError::Core(_)));
    says(&error, &["no-such-folder"]);
    let error = Documents::read(&folder, &Chunking::words(5)).unwrap_err();
    assert!(matches!(error, RetrieveError::Core(CoreError::Io { .. })));
    says(&error, &["no-such-folder"]);
}

#[test]
fn a_missing_file_is_named() {
    for (file, parts) in [
        (
            "model.safetensors",
            ["model.safetensors", "pytorch_model.bin"],
        ),
        ("config.json", ["config.json", "rag"]),
        (
            "context_encoder/model.safetensors",
            ["context_encoder", "model.safetensors"],
        ),
        (
            "context_encoder/config.json",
            ["context_encoder", "config.json"],
        ),
        (
            "question_encoder_tokenizer/tokenizer.json",
            ["question_encoder_tokenizer", "tokenizer.json"],
        ),
        (
            "generator_tokenizer/tokenizer.json",
            ["generator_tokenizer", "tokenizer.json"],
        ),
    ] {
        let saved = Saved::new(Kind::Bart);
        fs::remove_file(saved.path().join(file)).unwrap();
        let error = saved.load().unwrap_err();
        assert!(matches!(
            core(&error),
            CoreError::MissingFile { .. } | CoreError::Io { .. }
        ));
        says(&error, &parts);
    }
}

#[test]
fn files_that_may_be_missing_may() {
    let saved = Saved::new(Kind::Bart);
    for file in ["generation_config.json", "context_encoder/tokenizer.json"] {
        fs::remove_file(saved.path().join(file)).unwrap();
    }
    saved.load().unwrap().ask(QUESTIONS[0]).unwrap();
}

#[test]
fn truncated_safetensors_are_damaged() {
    let saved = Saved::new(Kind::Bart);
    for file in ["model.safetensors", "context_encoder/model.safetensors"] {
        let path = saved.path().join(file);
        let bytes = fs::read(&path).unwrap();
        for length in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            let error = saved.load().unwrap_err();
            assert!(
                matches!(core(&error), CoreError::DamagedWeights { .. }),
                "{error:?}"
            );
            says(&error, &["model.safetensors"]);
        }
        for garbage in [
            &[0xff; 64][..],
            b"{}",
            b"version https://git-lfs.github.com/spec/v1\n",
        ] {
            fs::write(&path, garbage).unwrap();
            let error = saved.load().unwrap_err();
            assert!(
                matches!(core(&error), CoreError::DamagedWeights { .. }),
                "{error:?}"
            );
        }
        fs::write(&path, &bytes).unwrap();
    }
    saved.load().unwrap();
}

#[test]
fn a_truncated_pytorch_file_is_damaged() {
    let saved = Saved::new(Kind::Bart);
    let expected = saved.load().unwrap().ask(QUESTIONS[0]).unwrap();
    let safetensors = saved.path().join("model.safetensors");
    let bytes = pytorch_file(&read_tensors(&safetensors));
    fs::remove_file(safetensors).unwrap();
    let path = saved.path().join("pytorch_model.bin");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(saved.load().unwrap().ask(QUESTIONS[0]).unwrap(), expected);

    for length in [
        0,
        1,
        4,
        50,
        1000,
        bytes.len() / 4,
        bytes.len() / 2,
        bytes.len() - 30,
        bytes.len() - 1,
    ] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = saved.load().unwrap_err();
        assert!(
            matches!(core(&error), CoreError::DamagedWeights { .. }),
            "{length}: {error:?}"
        );
        says(&error, &["pytorch_model.bin"]);
    }
    for garbage in [
        &[0xff; 64][..],
        b"PK\x03\x04",
        b"\x80\x02}q\x00.",
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
    ] {
        fs::write(&path, garbage).unwrap();
        let error = saved.load().unwrap_err();
        says(&error, &["rag"]);
    }
}

/// A state dict as `torch.save` writes it: a zip of a pickle and the tensors' bytes, uncompressed.
fn pytorch_file(tensors: &Tensors) -> Vec<u8> {
    let text = |text: &str| {
        let length = (text.len() as u32).to_le_bytes();
        [b"X", length.as_slice(), text.as_bytes()].concat()
    };
    let number = |number: usize| [b"J", (number as u32).to_le_bytes().as_slice()].concat();
    let tuple = |numbers: &[usize]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|&n| number(n)).collect();
        [b"(", numbers.as_slice(), b"t"].concat()
    };
    let mut pickle = b"\x80\x02}(".to_vec();
    let mut files = Vec::new();
    for (i, (name, (shape, bytes))) in tensors.iter().enumerate() {
        let strides: Vec<usize> = (0..shape.len())
            .map(|d| shape[d + 1..].iter().product())
            .collect();
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(text("storage"));
        pickle.extend(b"ctorch\nFloatStorage\n");
        pickle.extend([text(&i.to_string()), text("cpu"), number(bytes.len() / 4)].concat());
        pickle.extend(b"tQ");
        pickle.extend([number(0), tuple(shape), tuple(&strides)].concat());
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        files.push((format!("archive/data/{i}"), bytes.clone()));
    }
    pickle.extend(b"u.");
    files.insert(0, ("archive/data.pkl".to_owned(), pickle));
    files.push(("archive/version".to_owned(), b"3\n".to_vec()));
    zip(&files)
}

fn zip(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in files {
        let offset = archive.len() as u32;
        let length = (bytes.len() as u32).to_le_bytes();
        let common = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0][..],
            &crc32(bytes).to_le_bytes(),
            &length,
            &length,
            &(name.len() as u16).to_le_bytes(),
            &[0, 0],
        ]
        .concat();
        archive.extend([b"PK\x03\x04", common.as_slice(), name.as_bytes(), bytes].concat());
        directory.extend(
            [
                b"PK\x01\x02\x14\x00",
                common.as_slice(),
                &[0; 10],
                &offset.to_le_bytes(),
                name.as_bytes(),
            ]
            .concat(),
        );
    }
    let count = (files.len() as u16).to_le_bytes();
    let (start, size) = (archive.len() as u32, directory.len() as u32);
    archive.extend(directory);
    archive.extend(
        [
            b"PK\x05\x06\0\0\0\0",
            count.as_slice(),
            &count,
            &size.to_le_bytes(),
            &start.to_le_bytes(),
            &[0, 0],
        ]
        .concat(),
    );
    archive
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_config_that_is_no_json_is_named() {
    for file in [
        "config.json",
        "generation_config.json",
        "context_encoder/config.json",
    ] {
        let saved = Saved::new(Kind::T5);
        let path = saved.path().join(file);
        for garbage in [&b""[..], b"garbage", b"{", b"[]", b"null", b"\xff\xfe\x00"] {
            fs::write(&path, garbage).unwrap();
            let error = saved.load().unwrap_err();
            assert!(
                matches!(core(&error), CoreError::Json { .. } | CoreError::Io { .. }),
                "{error:?}"
            );
            says(&error, &[file]);
        }
    }
}

#[test]
fn a_field_of_another_type_is_named_with_its_place() {
    let saved = Saved::new(Kind::T5);
    saved.change_config(|config| config["generator"]["d_ff"] = json!("wide"));
    refuses!(
        saved.load(),
        Error::Core(CoreError::Json { .. }),
        "config.json",
        "wide"
    );
    saved.change_config(|config| {
        config["generator"]["d_ff"] = json!(48);
        config["n_docs"] = json!(-1);
    });
    refuses!(
        saved.load(),
        Error::Core(CoreError::Json { .. }),
        "config.json",
        "-1"
    );
}

#[test]
fn a_config_with_windows_line_endings_is_read() {
    let saved = Saved::new(Kind::T5);
    let expected = saved.load().unwrap().ask(QUESTIONS[0]).unwrap();
    for file in [
        "config.json",
        "generation_config.json",
        "context_encoder/config.json",
    ] {
        let path = saved.path().join(file);
        let text = fs::read_to_string(&path).unwrap().replace('\n', "\r\n");
        fs::write(&path, text).unwrap();
    }
    assert_eq!(saved.load().unwrap().ask(QUESTIONS[0]).unwrap(), expected);
}

#[test]
fn a_config_of_another_shape_is_refused() {
    type Change = fn(&mut Value);
    let changes: [(Kind, Change, &str); 8] = [
        (
            Kind::Bart,
            |c| c["generator"]["encoder_ffn_dim"] = json!(64),
            "fc1",
        ),
        (
            Kind::Bart,
            |c| c["generator"]["max_position_embeddings"] = json!(80),
            "embed_positions",
        ),
        (
            Kind::Bart,
            |c| c["generator"]["d_model"] = json!(64),
            "rag.generator",
        ),
        (
            Kind::T5,
            |c| c["generator"]["d_kv"] = json!(4),
            "SelfAttention",
        ),
        (
            Kind::T5,
            |c| c["generator"]["relative_attention_num_buckets"] = json!(16),
            "relative_attention_bias",
        ),
        (
            Kind::T5,
            |c| c["question_encoder"]["intermediate_size"] = json!(64),
            "intermediate",
        ),
        (
            Kind::T5,
            |c| c["question_encoder"]["projection_dim"] = json!(5),
            "encode_proj",
        ),
        (
            Kind::T5,
            |c| c["question_encoder"]["vocab_size"] = json!(300),
            "word_embeddings",
        ),
    ];
    for (kind, change, name) in changes {
        let saved = Saved::new(kind);
        saved.change_config(change);
        let error = saved.load().unwrap_err();
        assert!(matches!(core(&error), CoreError::Shape { .. }), "{error:?}");
        says(&error, &[name]);
    }
}

#[test]
fn a_config_of_other_layers_is_refused() {
    let saved = Saved::new(Kind::Bart);
    saved.change_config(|config| config["generator"]["decoder_layers"] = json!(3));
    refuses!(
        saved.load(),
        Error::Core(CoreError::MissingTensors { .. }),
        "decoder.layers.2"
    );
    saved.change_config(|config| config["generator"]["decoder_layers"] = json!(1));
    refuses!(
        saved.load(),
        Error::Core(CoreError::UnknownTensors { .. }),
        "decoder.layers.1"
    );
}

#[test]
fn a_config_that_contradicts_itself_is_refused() {
    type Change = fn(&mut Value);
    let changes: [(Kind, Change, &str); 6] = [
        (
            Kind::Bart,
            |c| c["generator"]["encoder_attention_heads"] = json!(5),
            "heads",
        ),
        (
            Kind::Bart,
            |c| c["generator"]["decoder_attention_heads"] = json!(0),
            "heads",
        ),
        (
            Kind::Bart,
            |c| c["generator"]["activation_function"] = json!("sine"),
            "sine",
        ),
        (
            Kind::T5,
            |c| c["generator"]["feed_forward_proj"] = json!("gated-sine"),
            "sine",
        ),
        (
            Kind::T5,
            |c| c["question_encoder"]["num_attention_heads"] = json!(7),
            "heads",
        ),
        (
            Kind::T5,
            |c| c["question_encoder"]["hidden_act"] = json!("sine"),
            "sine",
        ),
    ];
    for (kind, change, part) in changes {
        let saved = Saved::new(kind);
        saved.change_config(change);
        let error = saved.load().unwrap_err();
        assert!(
            matches!(core(&error), CoreError::Config { .. }),
            "{error:?}"
        );
        says(&error, &[part]);
    }
}

#[test]
fn an_unknown_generator_is_refused() {
    let saved = Saved::new(Kind::T5);
    saved.change_config(|config| config["generator"]["model_type"] = json!("gpt2"));
    refuses!(
        saved.load(),
        Error::Core(CoreError::Json { .. }),
        "gpt2",
        "bart",
        "t5"
    );
}

#[test]
fn a_checkpoint_lacking_a_tensor_is_refused_by_its_name() {
    for name in [
        "rag.generator.encoder.block.0.layer.0.SelfAttention.q.weight",
        "rag.question_encoder.question_encoder.bert_model.embeddings.LayerNorm.bias",
        "rag.generator.shared.weight",
    ] {
        let saved = Saved::new(Kind::T5);
        saved.change_tensors(|tensors| {
            tensors.remove(name).unwrap();
        });
        refuses!(
            saved.load(),
            Error::Core(CoreError::MissingTensors { .. })
                | Error::Retrieve(RetrieveError::Core(CoreError::MissingTensors { .. })),
            name,
            "lacks 1 tensor(s)"
        );
    }
}

#[test]
fn a_checkpoint_with_an_unknown_tensor_is_refused_by_its_name() {
    let saved = Saved::new(Kind::T5);
    saved.change_tensors(|tensors| {
        tensors.insert(
            "rag.generator.adapter.weight".to_owned(),
            (vec![2], vec![0; 8]),
        );
    });
    refuses!(
        saved.load(),
        Error::Core(CoreError::UnknownTensors { .. }),
        "rag.generator.adapter.weight"
    );
}

#[test]
fn a_tokenizer_larger_than_its_vocabulary_is_refused() {
    let mut generator = config(Kind::Bart);
    let mut question = generator.clone();
    let vocabulary = generator.generator.vocabulary();
    generator.generator = fixtures::changed(&generator.generator, |fields| {
        fields["vocab_size"] = json!(vocabulary - 1);
    });
    question.question_encoder.bert.vocab_size -= 1;
    let build = |config| {
        let encoder = context_encoder(7);
        let knowledge = knowledge(&encoder);
        let checkpoint = Checkpoint::new(config, &cpu()).unwrap();
        let tokenizer = generator_tokenizer(Kind::Bart);
        Rag::new(
            checkpoint,
            question_tokenizer(),
            tokenizer,
            encoder,
            knowledge,
        )
    };
    refuses!(
        build(question),
        Error::Retrieve(RetrieveError::Core(CoreError::Vocabulary { .. })),
        "vocab.txt",
        "tokenizer"
    );
    refuses!(
        build(generator),
        Error::Core(CoreError::Vocabulary { .. }),
        "vocab.json",
        "tokenizer"
    );
}

#[test]
fn a_broken_tokenizer_is_named() {
    for (file, folder) in [
        ("tokenizer.json", "question_encoder_tokenizer"),
        ("tokenizer.json", "generator_tokenizer"),
    ] {
        let saved = Saved::new(Kind::Bart);
        for garbage in ["", "{}", "{\"version\": \"1.0\"", "\u{0}"] {
            fs::write(saved.path().join(folder).join(file), garbage).unwrap();
            let error = saved.load().unwrap_err();
            assert!(
                matches!(core(&error), CoreError::Tokenizer { .. }),
                "{error:?}"
            );
            says(&error, &[folder]);
        }
    }
}

#[test]
fn a_word_list_without_its_special_tokens_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vocab.txt"), "[PAD]\n[UNK]\nthe\n").unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err();
    assert!(matches!(error, CoreError::Tokenizer { .. }), "{error:?}");
    says(&error, &["[SEP]", "vocab.txt"]);
}

#[test]
fn a_word_list_with_windows_line_endings_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let words = common::question_vocabulary().join("\r\n") + "\r\n";
    fs::write(folder.path().join("vocab.txt"), words).unwrap();
    let windows = Tokenizer::from_folder(folder.path()).unwrap();
    for question in QUESTIONS {
        assert_eq!(
            windows.encode(question).unwrap(),
            question_tokenizer().encode(question).unwrap()
        );
    }
}

/// Writes NaN into every weight.
struct Spoil;

impl ModuleMapper for Spoil {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor * f32::NAN)
    }
}

#[test]
fn vectors_that_are_not_numbers_are_refused() {
    let sound = context_encoder(7);
    let encoder = sound.with_encoder(sound.encoder().clone().map(&mut Spoil));
    refuses!(
        build_knowledge_base(passages(), &encoder, Storage::F32, |_| ()),
        RetrieveError::Index(IndexError::NotFinite {
            what: "passage vector",
            row: 0
        }),
        "NaN"
    );
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut vectors = sound.embed_passages(&passages()).unwrap();
        vectors[[4, 1]] = bad;
        let fingerprint = sound.fingerprint().unwrap();
        refuses!(
            KnowledgeBase::new(passages(), vectors, Storage::F16, fingerprint),
            RetrieveError::Index(IndexError::NotFinite {
                what: "passage vector",
                row: 4
            }),
            "passage vector 4"
        );
    }
    let mut vectors = sound.embed_passages(&passages()).unwrap();
    vectors[[2, 0]] = 1e6;
    refuses!(
        KnowledgeBase::new(
            passages(),
            vectors,
            Storage::F16,
            sound.fingerprint().unwrap()
        ),
        RetrieveError::Index(IndexError::HalfRange { row: 2, .. }),
        "f32"
    );
}

#[test]
fn weights_that_are_not_numbers_give_no_answer() {
    let mut rag = rag(Kind::T5);
    let sound = rag.clone();
    let question = rag.retriever.question_text_encoder().unwrap();
    let question = question.with_encoder(question.encoder().clone().map(&mut Spoil));
    rag.retriever = rag.retriever.clone().with_question_encoder(question);
    refuses!(
        rag.ask(QUESTIONS[0]),
        Error::Retrieve(RetrieveError::Index(IndexError::NotFinite {
            what: "query",
            ..
        })),
        "NaN"
    );
    let generator = sound.generator().clone().map(&mut Spoil);
    let rag = sound.with_generator(generator).unwrap();
    for model in MODELS {
        refuses!(
            rag.clone().with_model(model).ask(QUESTIONS[0]),
            Error::Decode(DecodeError::InvalidScore { .. }),
            "NaN"
        );
    }
}

#[test]
fn a_knowledge_base_of_another_encoder_is_refused() {
    let build = |encoder: TextEncoder, knowledge: KnowledgeBase| {
        Rag::new(
            common::checkpoint(config(Kind::T5), 1),
            question_tokenizer(),
            generator_tokenizer(Kind::T5),
            encoder,
            knowledge,
        )
    };
    let other = knowledge(&context_encoder(8));
    refuses!(
        build(context_encoder(7), other),
        Error::Retrieve(RetrieveError::Knowledge(
            KnowledgeError::OtherEncoder { .. }
        )),
        "dpr",
        "load the encoder it was made with"
    );
    let prefix = EncoderConfig {
        passage_prefix: "passage: ".into(),
        ..context_encoder(7).config().clone()
    };
    let prefixed = context_encoder_with(prefix, 7);
    refuses!(
        build(prefixed, knowledge(&context_encoder(7))),
        Error::Retrieve(RetrieveError::Knowledge(
            KnowledgeError::OtherEncoder { .. }
        )),
        "encode its passages again"
    );
}

#[test]
fn a_changed_byte_in_a_knowledge_base_is_found() {
    for storage in [Storage::F32, Storage::F16] {
        let folder = tempfile::tempdir().unwrap();
        let saved = build_knowledge_base(passages(), &context_encoder(7), storage, |_| ()).unwrap();
        saved.save(&folder).unwrap();
        let files = common::files(folder.path());
        let with_content = files.iter().filter(|(_, bytes)| !bytes.is_empty());
        assert_eq!(with_content.clone().count(), 4);
        for (name, bytes) in with_content {
            let path = folder.path().join(name);
            let last = bytes.len() - 1;
            for at in [
                0,
                1,
                7,
                last / 4,
                last / 3,
                last / 2,
                2 * last / 3,
                last - 1,
                last,
            ] {
                for change in [0x01, 0x20, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] ^= change;
                    fs::write(&path, changed).unwrap();
                    let error = KnowledgeBase::open(&folder).unwrap_err();
                    is_damage(&error, name);
                }
            }
            for length in [0, 1, last / 2, last] {
                fs::write(&path, &bytes[..length]).unwrap();
                let error = KnowledgeBase::open(&folder).unwrap_err();
                is_damage(&error, name);
            }
            fs::write(&path, [bytes.as_slice(), b"\n"].concat()).unwrap();
            is_damage(&KnowledgeBase::open(&folder).unwrap_err(), name);
            fs::remove_file(&path).unwrap();
            let error = KnowledgeBase::open(&folder).unwrap_err();
            match name.as_str() {
                "manifest.json" => {
                    says(&error, &["is not a knowledge base", "build_knowledge_base"])
                }
                _ => says(&error, &["there is no", name]),
            }
            fs::write(&path, bytes).unwrap();
        }
        // The lock says nothing.
        for name in files
            .iter()
            .filter(|(_, bytes)| bytes.is_empty())
            .map(|(name, _)| name)
        {
            fs::write(folder.path().join(name), "changed").unwrap();
        }
        let opened = KnowledgeBase::open(&folder).unwrap();
        assert_eq!(opened.index().rows(0..6), saved.index().rows(0..6));
    }
}

fn is_damage(error: &RetrieveError, name: &str) {
    assert!(
        matches!(
            error,
            RetrieveError::Knowledge(KnowledgeError::Checksum { .. })
                | RetrieveError::Knowledge(KnowledgeError::Size { .. })
                | RetrieveError::Knowledge(KnowledgeError::Damaged { .. })
                | RetrieveError::Knowledge(KnowledgeError::FormatVersion { .. })
                | RetrieveError::Core(CoreError::Json { .. })
        ),
        "{error:?}"
    );
    says(error, &[name]);
}

#[test]
fn an_empty_corpus_is_refused_and_its_files_named() {
    let read = |files: &[(&str, &[u8])]| {
        let folder = corpus(files);
        Documents::read(folder.path(), &Chunking::words(10))
    };
    refuses!(
        read(&[]),
        RetrieveError::Document(DocumentError::EmptyCorpus { .. }),
        ".txt",
        ".jsonl",
        "no file"
    );
    refuses!(
        read(&[("a.pdf", b"%PDF"), ("b.txt", b"\xff\xfe\x00"), ("c.md", b"# Heading only\n"), ("d.txt", b" \r\n\t")]),
        RetrieveError::Document(DocumentError::EmptyCorpus { skipped, .. }) if skipped.len() == 4,
        "a.pdf", "b.txt (not UTF-8)", "c.md", "d.txt (no text in it)"
    );
    refuses!(
        build_knowledge_base(Vec::new(), &context_encoder(7), Storage::F32, |_| ()),
        RetrieveError::Knowledge(KnowledgeError::Empty),
        "at least one passage"
    );
}

#[cfg(unix)]
#[test]
fn a_document_that_cannot_be_opened_is_named() {
    let folder = corpus(&[("a.txt", b"text")]);
    std::os::unix::fs::symlink("/no/such/target", folder.path().join("b.txt")).unwrap();
    let error = Documents::read(folder.path(), &Chunking::words(10)).unwrap_err();
    assert!(
        matches!(error, RetrieveError::Core(CoreError::Io { .. })),
        "{error:?}"
    );
    says(&error, &["b.txt"]);
}

fn corpus(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

#[test]
fn a_question_without_a_word_is_refused_everywhere() {
    for (kind, model) in KINDS
        .into_iter()
        .flat_map(|kind| MODELS.map(|model| (kind, model)))
    {
        let rag = rag(kind).with_model(model);
        let found = rag
            .retriever
            .retrieve(&[QUESTIONS[0]])
            .unwrap()
            .swap_remove(0);
        for question in ["", " ", "\t\r\n", "\u{3000}\u{a0}"] {
            let empty = |error: Error| {
                assert!(
                    matches!(
                        error,
                        Error::Retrieve(RetrieveError::Retriever(RetrieverError::EmptyQuestion))
                    ),
                    "{question:?}: {error:?}"
                );
                says(&error, &["at least one word"]);
            };
            empty(rag.ask(question).unwrap_err());
            empty(rag.ask_with(question, Control::default()).unwrap_err());
            empty(rag.ask_several(question).unwrap_err());
            empty(rag.score(question, &["rain"]).unwrap_err());
            empty(rag.classify(question, &["rain"]).unwrap_err());
            empty(
                rag.ask_or_abstain(question, Threshold::Probability(0.5))
                    .unwrap_err(),
            );
            empty(
                rag.rank_candidates(question, &["rain"], RankBy::Evidence)
                    .unwrap_err(),
            );
        }
        assert_eq!(found.len(), N_DOCS);
    }
}

#[test]
fn candidates_are_not_ranked_for_an_empty_question() {
    let ranked = rag(Kind::T5).rank_candidates(" ", &["rain"], RankBy::Question);
    refuses!(
        ranked,
        Error::Retrieve(RetrieveError::Retriever(RetrieverError::EmptyQuestion)),
        "at least one word"
    );
}

#[test]
fn an_empty_question_is_not_answered_from_given_passages() {
    let rag = rag(Kind::T5);
    let found = rag
        .retriever
        .retrieve(&[QUESTIONS[0]])
        .unwrap()
        .swap_remove(0);
    let answers = rag.answers(" ", &found, Control::default());
    refuses!(
        answers,
        Error::Retrieve(RetrieveError::Retriever(RetrieverError::EmptyQuestion)),
        "at least one word"
    );
}

#[test]
fn a_question_is_refused_rather_than_cut() {
    let question = "rain ".repeat(10_000);
    for kind in KINDS {
        let rag = rag(kind);
        refuses!(
            rag.ask(&question),
            Error::Retrieve(RetrieveError::Encoder(EncoderError::QuestionTooLong {
                tokens: 10_002,
                longest: POSITIONS
            })),
            "10002",
            "96",
            "ask a shorter one"
        );
        let passages = rag.retriever.retrieve(&["rain"]).unwrap().swap_remove(0);
        refuses!(
            rag.answers(&question, &passages, Control::default()),
            Error::QuestionTooLong { longest: 300, .. },
            "ask a shorter question",
            "max_combined_length"
        );
        refuses!(
            rag.rank_candidates("rain", &[&question], RankBy::Evidence),
            Error::Retrieve(RetrieveError::Encoder(EncoderError::QuestionTooLong { .. })),
            "10002"
        );
        let unbroken = "rain".repeat(10_000);
        // One word beyond WordPiece's limit is one unknown token to the retriever, but not to the generator.
        match rag.ask(&unbroken) {
            Ok(answer) => assert_eq!(answer.question, unbroken),
            Err(error) => says(&error, &["ask a shorter"]),
        }
    }
}

#[test]
fn contexts_longer_than_the_generator_reads_are_cut_to_its_positions() {
    let rag = short_bart(RagModel::Token);
    rag.ask("who wrote it?").unwrap();
    refuses!(
        rag.ask(&"who wrote ".repeat(8)),
        Error::QuestionTooLong { longest: 40, .. },
        "ask a shorter question"
    );
}

/// A BART that reads and writes at most 40 tokens.
fn short_bart(model: RagModel) -> Rag {
    let mut config = config(Kind::Bart);
    config.generator = fixtures::changed(&config.generator, |fields| {
        fields["max_position_embeddings"] = json!(40);
    });
    common::rag_with(Kind::Bart, common::checkpoint(config, 1)).with_model(model)
}

#[test]
fn candidates_longer_than_the_generator_writes_are_refused() {
    for model in MODELS {
        let rag = short_bart(model);
        // With the end token, 40 fit.
        rag.score("rain", &[&"S".repeat(39)]).unwrap();
        says(&rag.score("rain", &[&"S".repeat(40)]).unwrap_err(), &["40"]);
        says(
            &rag.classify("rain", &["wet", &"S".repeat(100)])
                .unwrap_err(),
            &["40"],
        );
    }
}

#[test]
fn answers_longer_than_the_generator_writes_are_refused() {
    for model in MODELS {
        for beams in [1, 2] {
            let rag = short_bart(model);
            let generation = rag
                .generation()
                .clone()
                .with_num_beams(beams)
                .with_max_length(41)
                .with_min_length(41);
            let rag = rag.with_generation(generation);
            assert_eq!(rag.ask("rain").unwrap().tokens.len(), 40);
            let generation = rag
                .generation()
                .clone()
                .with_max_length(100)
                .with_min_length(90);
            let rag = rag.with_generation(generation);
            says(&rag.ask("rain").unwrap_err(), &["40"]);
        }
    }
}

#[test]
fn a_number_of_documents_that_cannot_be_is_refused() {
    let rag = rag(Kind::T5);
    let passages = rag.retriever.local().unwrap().len();
    for n_docs in [0, passages + 1, usize::MAX] {
        refuses!(
            rag.retriever.clone().top_k(n_docs),
            RetrieveError::Retriever(RetrieverError::TooFewPassages { passages: 6, .. }),
            &n_docs.to_string(),
            "ask for 1 to 6"
        );
        let mut config = config(Kind::T5);
        config.n_docs = n_docs;
        let encoder = context_encoder(7);
        let knowledge = knowledge(&encoder);
        let built = Rag::new(
            common::checkpoint(config, 1),
            question_tokenizer(),
            generator_tokenizer(Kind::T5),
            encoder,
            knowledge,
        );
        refuses!(
            built,
            Error::Retrieve(RetrieveError::Retriever(
                RetrieverError::TooFewPassages { .. }
            )),
            &n_docs.to_string(),
            "ask for 1 to 6"
        );
    }
    let mut all = rag;
    all.retriever = all.retriever.top_k(passages).unwrap();
    assert_eq!(all.ask(QUESTIONS[0]).unwrap().evidence.len(), passages);
}

#[test]
fn documents_that_are_not_utf8_are_skipped_and_counted() {
    let folder = corpus(&[
        ("good.txt", "rain and 雨".as_bytes()),
        ("latin.txt", b"caf\xe9"),
        ("utf16.md", b"\xff\xfer\0a\0"),
        ("rows.jsonl", b"{\"text\": \"kept back\"}\n\xff\n"),
        ("rows.tsv", b"id\ttext\n1\t\xff\n"),
    ]);
    let documents = Documents::read(folder.path(), &Chunking::words(10)).unwrap();
    assert_eq!((documents.passages.len(), documents.files), (1, 1));
    let reasons: Vec<_> = documents
        .skipped
        .iter()
        .map(|skipped| &skipped.reason)
        .collect();
    assert_eq!(reasons, [&SkipReason::NotUtf8; 4]);
    let report = documents.to_string();
    assert!(report.contains("skipped 4"), "{report}");
    for name in ["latin.txt", "utf16.md", "rows.jsonl", "rows.tsv"] {
        assert!(report.contains(name), "{report}");
    }
}

#[test]
fn malformed_rows_are_named() {
    let read = |name: &str, content: &str| {
        let folder = corpus(&[(name, content.as_bytes())]);
        Documents::read(folder.path(), &Chunking::words(10))
    };
    refuses!(
        read(
            "rows.jsonl",
            "{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\"\r\n"
        ),
        RetrieveError::Document(DocumentError::JsonLine { line: 3, .. }),
        "rows.jsonl",
        "line 3",
        "mend or remove the line"
    );
    refuses!(
        read("rows.jsonl", "{\"title\": \"no text\"}"),
        RetrieveError::Document(DocumentError::JsonLine { line: 1, .. }),
        "text"
    );
    refuses!(
        read("rows.tsv", "id\ttext\r\n1\ta\r\n2\r\n"),
        RetrieveError::Document(DocumentError::TableLine { line: 3, .. }),
        "rows.tsv",
        "line 3",
        "2 fields"
    );
    refuses!(
        read(
            "rows.jsonl",
            "{\"id\": 1, \"text\": \"a\"}\n{\"id\": \"1\", \"text\": \"b\"}\n"
        ),
        RetrieveError::Document(DocumentError::DuplicateId { .. }),
        "\"1\"",
        "give every passage its own"
    );
}

#[test]
fn windows_files_are_read_like_others() {
    let texts = [
        ("a.txt", "It rained.\nThe road was wet.\n\n下雨了。\n"),
        (
            "b.md",
            "---\ntitle: x\n---\n\n# 天气\n\nRain, 雨.\n\n## Two\ntext\n",
        ),
        (
            "c.jsonl",
            "{\"id\": \"1\", \"title\": \"T\", \"text\": \"one\"}\n{\"contents\": \"two\"}\n",
        ),
        (
            "d.tsv",
            "id\ttext\ttitle\nx\tplain\tP\ny\t\"quoted \"\"q\"\"\"\tQ\n",
        ),
    ];
    let passages = |change: fn(&str) -> String| {
        let files: Vec<_> = texts
            .map(|(name, text)| (name, change(text).into_bytes()))
            .into();
        let files: Vec<_> = files
            .iter()
            .map(|(name, bytes)| (*name, bytes.as_slice()))
            .collect();
        let folder = corpus(&files);
        let documents = Documents::read(folder.path(), &Chunking::words(50)).unwrap();
        let texts = documents.passages.into_iter().inspect(|passage| {
            let source = passage.source.as_ref().unwrap();
            let file = fs::read(&source.file).unwrap();
            let cited = std::str::from_utf8(&file[source.bytes.clone()]).unwrap();
            assert!(
                !cited.starts_with('\u{feff}') && !cited.ends_with(['\r', '\n']),
                "{cited:?}"
            );
        });
        texts
            .map(|passage| {
                (
                    passage.id,
                    passage.title,
                    passage.text.replace("\r\n", "\n"),
                )
            })
            .collect::<Vec<_>>()
    };
    let expected = passages(str::to_owned);
    assert_eq!(passages(|text| text.replace('\n', "\r\n")), expected);
    assert_eq!(passages(|text| format!("\u{feff}{text}")), expected);
    assert_eq!(
        passages(|text| format!("\u{feff}{}", text.replace('\n', "\r\n"))),
        expected
    );
}

#[test]
fn an_unknown_device_is_refused() {
    for name in [
        "", "gpu", "CPU", "cpu:0", "cuda:-1", "cuda:x", "wgpu:", "cpu ", "显卡",
    ] {
        refuses!(
            burn_rag::core::device(name),
            CoreError::Device { .. },
            "cpu",
            &format!("{name:?}")
        );
    }
}

#[test]
fn settings_that_contradict_are_refused() {
    type Change = fn(GenerationConfig) -> GenerationConfig;
    let changes: [(Change, &str); 14] = [
        (
            |g| g.with_num_beams(2).with_num_return_sequences(3),
            "raise num_beams to at least 3",
        ),
        (
            |g| g.with_num_return_sequences(2),
            "raise num_beams to at least 2",
        ),
        (|g| g.with_num_beams(0), "num_beams is 0"),
        (
            |g| g.with_num_return_sequences(0),
            "num_return_sequences is 0",
        ),
        (
            |g| g.with_max_length(4).with_min_length(5),
            "lower min_length",
        ),
        (|g| g.with_max_length(1), "max_length is 1"),
        (|g| g.with_max_new_tokens(0), "max_new_tokens is 0"),
        (
            |g| g.with_max_new_tokens(4).with_min_new_tokens(5),
            "lower min_new_tokens",
        ),
        (
            |g| g.with_stop_strings([".", ""]),
            "stop_strings[1] is empty",
        ),
        (
            |g| g.with_do_sample(true).with_temperature(0.0),
            "temperature is 0",
        ),
        (|g| g.with_do_sample(true).with_top_p(1.5), "top_p is 1.5"),
        (
            |g| g.with_repetition_penalty(-1.0),
            "repetition_penalty is -1",
        ),
        (|g| g.with_length_penalty(f64::NAN), "length_penalty is NaN"),
        (
            |g| g.with_eos_token_id(100_000),
            "eos_token_id names token 100000",
        ),
    ];
    for (kind, model) in KINDS
        .into_iter()
        .flat_map(|kind| MODELS.map(|model| (kind, model)))
    {
        let rag = rag(kind).with_model(model);
        for (change, part) in changes {
            let changed = rag
                .clone()
                .with_generation(change(rag.generation().clone()));
            let error = changed.ask(QUESTIONS[0]).unwrap_err();
            assert!(
                matches!(error, Error::Decode(_)),
                "{part}, {model:?}: {error:?}"
            );
            says(&error, &[part]);
        }
    }
}

#[test]
fn settings_without_a_start_are_refused_at_once() {
    let mut checkpoint = common::checkpoint(config(Kind::T5), 1);
    checkpoint.generation.decoder_start_token_id = None;
    checkpoint.generation.bos_token_id = None;
    let encoder = context_encoder(7);
    let knowledge = knowledge(&encoder);
    let built = Rag::new(
        checkpoint,
        question_tokenizer(),
        generator_tokenizer(Kind::T5),
        encoder,
        knowledge,
    );
    refuses!(
        built,
        Error::Decode(DecodeError::NoStartToken),
        "decoder_start_token_id"
    );
}

#[test]
fn settings_cannot_lose_the_start() {
    let rag = rag(Kind::T5);
    let generation = GenerationConfig {
        decoder_start_token_id: None,
        eos_token_id: Vec::new(),
        ..rag.generation().clone()
    };
    let changed = rag.clone().with_generation(generation);
    assert_eq!(changed.generation(), rag.generation());
    assert_eq!(changed.ask("rain").unwrap(), rag.ask("rain").unwrap());
    let [changed, rag] = [changed, rag].map(|rag| rag.score("rain", &["wet"]).unwrap());
    assert_eq!(changed, rag);
}

#[test]
fn no_candidates_and_no_passages_are_refused() {
    for model in MODELS {
        let rag = rag(Kind::T5).with_model(model);
        let question = QUESTIONS[0];
        refuses!(
            rag.score(question, &[]),
            Error::NoCandidates,
            "give at least one"
        );
        refuses!(
            rag.classify(question, &[]),
            Error::NoCandidates,
            "give at least one"
        );
        for by in [RankBy::Question, RankBy::Evidence] {
            refuses!(
                rag.rank_candidates(question, &[], by),
                Error::NoCandidates,
                "give at least one"
            );
        }
        refuses!(
            rag.answers(question, &[], Control::default()),
            Error::NoPassages,
            "give at least one"
        );
        let nothing = rag.allowed(&[]).unwrap();
        let allowed = nothing.callback();
        refuses!(
            rag.ask_with(question, Control::default().with_allowed(&allowed)),
            Error::Decode(DecodeError::NothingAllowed { .. }),
            "let it allow"
        );
    }
}

#[test]
fn labels_longer_than_the_longest_answer_are_cut_not_lost() {
    let rag = rag(Kind::T5);
    let generation = rag.generation().clone().with_max_length(3);
    let rag = rag.with_generation(generation);
    let labels = rag.allowed(&["rain in the city"]).unwrap();
    let allowed = labels.callback();
    let answer = rag
        .ask_with("rain", Control::default().with_allowed(&allowed))
        .unwrap();
    assert_eq!(answer.tokens.len(), 2);
}

#[test]
fn the_empty_string_is_a_candidate() {
    for (kind, model) in KINDS
        .into_iter()
        .flat_map(|kind| MODELS.map(|model| (kind, model)))
    {
        let rag = rag(kind).with_model(model);
        let scored = rag.score(QUESTIONS[0], &["", "rain"]).unwrap();
        assert_eq!(scored[0].text, "");
        assert!(
            scored.iter().all(|answer| answer.log_likelihood < 0.0),
            "{scored:?}"
        );
        assert_eq!(rag.classify(QUESTIONS[0], &[""]).unwrap().text, "");
        for by in [RankBy::Question, RankBy::Evidence] {
            let ranked = rag
                .rank_candidates(QUESTIONS[0], &["", "rain"], by)
                .unwrap();
            assert!(ranked.iter().all(|one| one.score.is_finite()), "{ranked:?}");
        }
        let empty = rag.allowed(&[""]).unwrap();
        let allowed = empty.callback();
        let answer = rag
            .ask_with(QUESTIONS[0], Control::default().with_allowed(&allowed))
            .unwrap();
        assert_eq!(answer.text, "");
    }
}

#[test]
fn questions_in_any_script_are_answered() {
    let questions = [
        "下雨了吗？",
        "明天 rain 吗",
        "🌧️?",
        "👩‍🔬👨‍👩‍👧‍👦",
        "☂",
        "ქართული हिन्दी العربية",
        "e\u{301}é",
        "\u{feff}rain",
        "\u{200b}",
        "\0",
        "rain\r\nin the\tcity",
        "[SEP] [PAD] </s> <pad> <mask>",
        " / // ",
        "\"\\{}%s",
        "𠀀𠀁",
    ];
    for (kind, model) in KINDS
        .into_iter()
        .flat_map(|kind| MODELS.map(|model| (kind, model)))
    {
        let rag = rag(kind).with_model(model);
        for question in questions {
            let answer = rag.ask(question).unwrap();
            assert_eq!(answer.question, question);
            assert!(answer.log_likelihood.is_finite() && answer.log_likelihood < 0.0);
            assert!(
                answer
                    .tokens
                    .iter()
                    .all(|token| token.log_probability <= 0.0)
            );
            let scored = rag.score(question, &["☂", "雨", "\0"]).unwrap();
            assert!(
                scored
                    .iter()
                    .all(|answer: &Answer| answer.log_likelihood.is_finite())
            );
        }
    }
}

#[test]
fn a_question_of_unknown_tokens_alone_is_answered() {
    let question = "§ § ¶";
    let ids = question_tokenizer().encode_bare(question).unwrap();
    let unknown = question_tokenizer().id("[UNK]").unwrap();
    assert!(
        !ids.is_empty() && ids.iter().all(|&id| id == unknown),
        "{ids:?}"
    );
    for kind in KINDS {
        let answer = rag(kind).ask(question).unwrap();
        assert_eq!(answer.evidence.len(), N_DOCS);
    }
}

#[test]
fn passages_of_any_length_and_script_are_read() {
    let encoder = context_encoder(7);
    let passages = vec![
        Passage::new("long", "Long", "rain in the city ".repeat(1000)),
        Passage::new("unbroken", "雨", "雨".repeat(5000)),
        Passage::new("empty", "", ""),
        Passage::new("title", &*"title ".repeat(400), "short"),
        Passage::new("emoji", "☂", "👩‍🔬".repeat(300)),
        Passage::new("quoted", "\"Weird\"", "  two  spaces  "),
    ];
    let count = passages.len();
    for kind in KINDS {
        let knowledge = build_knowledge_base(passages.clone(), &encoder, Storage::F32, |_| ());
        let rag = Rag::new(
            common::checkpoint(config(kind), 1),
            question_tokenizer(),
            generator_tokenizer(kind),
            encoder.clone(),
            knowledge.unwrap(),
        )
        .unwrap();
        let mut rag = rag.with_max_combined_length(60);
        rag.retriever = rag.retriever.top_k(count).unwrap();
        // The longest title does not fit, but the question does.
        match rag.ask("rain?") {
            Ok(answer) => assert_eq!(answer.evidence.len(), count),
            Err(error) => panic!("a long title is not the question's fault: {error}"),
        }
    }
}

#[test]
fn an_encoder_of_another_architecture_is_refused() {
    let saved = Saved::new(Kind::T5);
    let folder = saved.path().join("context_encoder");
    let mut config: Value =
        serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    config["model_type"] = json!("roberta");
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    refuses!(
        load_encoder(&folder, &cpu()),
        RetrieveError::Core(CoreError::Config { .. }),
        "roberta",
        "bert or dpr"
    );
    fs::write(folder.join("config.json"), "{\"model_type\": \"dpr\"}").unwrap();
    assert!(load_encoder(&folder, &cpu()).is_err());
}

#[test]
fn shards_that_are_missing_or_lead_elsewhere_are_named() {
    let saved = Saved::new(Kind::T5);
    fs::remove_file(saved.path().join("model.safetensors")).unwrap();
    let index =
        json!({"weight_map": {"rag.generator.shared.weight": "model-00001-of-00002.safetensors"}});
    let path = saved.path().join("model.safetensors.index.json");
    fs::write(&path, index.to_string()).unwrap();
    let error = saved.load().unwrap_err();
    assert!(
        matches!(
            core(&error),
            CoreError::Io { .. } | CoreError::MissingFile { .. }
        ),
        "{error:?}"
    );
    says(&error, &["model-00001-of-00002.safetensors"]);
    fs::write(&path, "{\"weight_map\": 3}").unwrap();
    let error = saved.load().unwrap_err();
    assert!(matches!(core(&error), CoreError::Json { .. }), "{error:?}");
}

#[test]
fn saving_where_nothing_can_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let rag = rag(Kind::T5);
    let error = rag.save(file.join("rag")).unwrap_err();
    assert!(matches!(core(&error), CoreError::Io { .. }), "{error:?}");
    let error = rag
        .retriever
        .local()
        .unwrap()
        .save(file.join("knowledge"))
        .unwrap_err();
    assert!(
        matches!(error, RetrieveError::Core(CoreError::Io { .. })),
        "{error:?}"
    );
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[test]
fn the_model_of_a_config_without_architectures_is_rag_sequence() {
    let saved = Saved::new(Kind::T5);
    saved.change_config(|config| {
        config.as_object_mut().unwrap().remove("architectures");
    });
    assert_eq!(saved.load().unwrap().model(), RagModel::Sequence);
}
