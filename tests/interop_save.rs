//! Checkpoints exchanged with transformers, in both directions; `tests/interop/run.sh` runs both tests
//! with `tests/interop/interop.py` between them. Alone they are skipped. Decoder-only generators: `causal`.

#![allow(clippy::unwrap_used)]

#[path = "interop/causal.rs"]
mod causal;

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn_rag::{
    burn::tensor::{Device, Int, Tensor, TensorData},
    core::{
        Passage, TokenBatch, Tokenizer,
        marginal::{RagModel, log_prior, log_sum_exp},
        nn::Precision,
    },
    generate::{
        Checkpoint, RagConfig,
        generator::{BartConfig, GeneratorConfig, T5Config},
        likelihood,
    },
    retrieve::{
        CrossEncoder, Encoder, EncoderConfig, Reranker, Role, TextEncoder,
        encoder::{BertConfig, load_encoder},
        rerank::PairScorer,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Inputs of a RAG checkpoint and what one side made of them; the other must find the same.
#[derive(Serialize, Deserialize)]
struct RagCase {
    question_ids: Vec<Vec<i64>>,
    question_mask: Vec<Vec<i64>>,
    question_vectors: Vec<Vec<f32>>,
    /// Those of one question after those of another.
    context_ids: Vec<Vec<i64>>,
    context_mask: Vec<Vec<i64>>,
    doc_scores: Vec<Vec<f32>>,
    decoder_ids: Vec<Vec<i64>>,
    /// Of the decoder's inputs, each after the first of its question's contexts.
    logits: Vec<Vec<Vec<f32>>>,
    rag_token_log_probs: Vec<Vec<Vec<f32>>>,
}

/// The same of an encoder.
#[derive(Serialize, Deserialize)]
struct EncoderCase {
    ids: Vec<Vec<i64>>,
    mask: Vec<Vec<i64>>,
    vectors: Vec<Vec<f32>>,
    /// A text whose tokens the folder's tokenizer is compared on.
    text: Option<String>,
    text_ids: Option<Vec<i64>>,
}

/// The same of a cross-encoder.
#[derive(Serialize, Deserialize)]
struct PairCase {
    question: String,
    passages: Vec<String>,
    /// Of the pairs, padded.
    ids: Vec<Vec<i64>>,
    mask: Vec<Vec<i64>>,
    segments: Vec<Vec<i64>>,
    scores: Vec<f32>,
}

const VOCABULARY: usize = 60;
const HIDDEN: usize = 32;
const WORDS: &str = "the capital of france is paris where does rain fall ? ##s ##ing";

#[test]
fn save_for_transformers() {
    let Some(parent) = folder("RAG_INTEROP_DIR") else {
        return;
    };
    let device = burn_rag::core::device("cpu").unwrap();
    device.seed(42);
    for (name, model, generator) in generators() {
        let config = RagConfig::new(model, encoder_config(), generator);
        let checkpoint = Checkpoint::new(config, &device).unwrap();
        let folder = parent.join(name);
        fs::create_dir_all(&folder).unwrap();
        checkpoint.save(&folder).unwrap();
        let mut case = rag_case(&checkpoint);
        evaluate(&checkpoint, &mut case, &device);
        write(&folder, &case);
    }

    let folder = parent.join("context_encoder");
    fs::create_dir_all(&folder).unwrap();
    let config = encoder_config();
    let encoder = config.init(&device).unwrap();
    let encoder = TextEncoder::new(encoder, tokenizer(), config).unwrap();
    encoder.save(&folder, Role::Context).unwrap();
    let text = "Where does the raining France fall?".to_owned();
    let ids = encoder.tokenizer().encode(&text).unwrap().ids;
    let case = rag_case_inputs();
    write(
        &folder,
        &EncoderCase {
            vectors: encode(encoder.encoder(), &case.0, &case.1, &device),
            ids: case.0,
            mask: case.1,
            text: Some(text),
            text_ids: Some(ids.into_iter().map(i64::from).collect()),
        },
    );
    save_cross_encoder(&parent.join("cross_encoder"), &device);
}

#[test]
fn load_from_transformers() {
    let Some(parent) = folder("RAG_INTEROP_FROM") else {
        return;
    };
    let device = burn_rag::core::device("cpu").unwrap();
    check_each(&parent, |name, folder| match name {
        name if name.starts_with("context_encoder") => check_encoder(folder, &device),
        name if name.starts_with("cross_encoder") => check_cross_encoder(folder, &device),
        _ => check_rag(folder, &device),
    });
}

/// Checks every folder in `parent`, by its name, and says at the end which do not agree.
fn check_each(parent: &Path, check: impl Fn(&str, &Path) -> Result<(), String>) {
    let mut checked = 0;
    let mut failures = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(parent)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("interop.json").is_file())
        .collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy();
        match check(&name, &folder) {
            Ok(()) => checked += 1,
            Err(reason) => failures.push(format!("{}: {reason}", folder.display())),
        }
    }
    println!(
        "{checked} folders of transformers loaded and agree, {} do not",
        failures.len()
    );
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert!(
        checked > 0,
        "{} holds no folder with interop.json",
        parent.display()
    );
}

fn check_rag(folder: &Path, device: &Device) -> Result<(), String> {
    let expected: RagCase = read(folder);
    let checkpoint = Checkpoint::load(folder, device).map_err(|error| error.to_string())?;
    let mut found: RagCase = read(folder);
    evaluate(&checkpoint, &mut found, device);
    compare(
        "question_vectors",
        &expected.question_vectors,
        &found.question_vectors,
    )?;
    let rows = |values: &[Vec<Vec<f32>>]| values.concat();
    compare("logits", &rows(&expected.logits), &rows(&found.logits))?;
    compare(
        "rag_token_log_probs",
        &rows(&expected.rag_token_log_probs),
        &rows(&found.rag_token_log_probs),
    )
}

fn check_encoder(folder: &Path, device: &Device) -> Result<(), String> {
    let expected: EncoderCase = read(folder);
    let (encoder, _) = load_encoder(folder, device).map_err(|error| error.to_string())?;
    let found = encode(&encoder, &expected.ids, &expected.mask, device);
    compare("vectors", &expected.vectors, &found)
}

fn save_cross_encoder(folder: &Path, device: &Device) {
    fs::create_dir_all(folder).unwrap();
    let config = BertConfig {
        model_type: "bert".into(),
        projection_dim: 0,
        ..encoder_config().bert
    };
    let model = PairScorer::new(&config, device).unwrap();
    let reranker = CrossEncoder::new(model, tokenizer(), config).unwrap();
    reranker.save(folder).unwrap();
    let mut case = PairCase {
        question: "where does rain fall?".into(),
        passages: vec![
            "Rain the capital of France is Paris".into(),
            "falling".into(),
        ],
        ids: Vec::new(),
        mask: Vec::new(),
        segments: Vec::new(),
        scores: Vec::new(),
    };
    let pairs = case.passages.iter().map(|passage| {
        reranker
            .tokenizer
            .encode_pair(&case.question, passage)
            .unwrap()
    });
    let pairs: Vec<_> = pairs.collect();
    let longest = pairs.iter().map(|pair| pair.ids.len()).max().unwrap();
    let padded = |values: Vec<u32>| -> Vec<i64> {
        let padding = std::iter::repeat_n(0, longest - values.len());
        values.into_iter().map(i64::from).chain(padding).collect()
    };
    for pair in pairs {
        case.mask.push(padded(vec![1; pair.ids.len()]));
        case.ids.push(padded(pair.ids));
        case.segments.push(padded(pair.segments));
    }
    case.scores = reranker
        .rerank(&case.question, &untitled(&case.passages))
        .unwrap();
    write(folder, &case);
}

fn untitled(texts: &[String]) -> Vec<Passage> {
    texts
        .iter()
        .map(|text| Passage::new("", "", text))
        .collect()
}

fn check_cross_encoder(folder: &Path, device: &Device) -> Result<(), String> {
    let expected: PairCase = read(folder);
    let reranker = CrossEncoder::load(folder, device).map_err(|error| error.to_string())?;
    let passages = untitled(&expected.passages);
    let found = reranker
        .rerank(&expected.question, &passages)
        .map_err(|error| error.to_string())?;
    compare("scores", &[expected.scores], &[found])
}

fn compare(name: &str, expected: &[Vec<f32>], found: &[Vec<f32>]) -> Result<(), String> {
    let [expected, found] = [expected.concat(), found.concat()];
    if expected.len() != found.len() {
        return Err(format!(
            "{name}: expected {} numbers, found {}",
            expected.len(),
            found.len()
        ));
    }
    for (i, (expected, found)) in expected.iter().zip(&found).enumerate() {
        let error = (expected - found).abs() / expected.abs().max(1.0);
        // A NaN is no agreement.
        if error.is_nan() || error > 1e-4 {
            return Err(format!("{name}[{i}]: expected {expected}, found {found}"));
        }
    }
    Ok(())
}

/// The folder in a variable of the environment; without it the test is skipped.
fn folder(variable: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: {variable} is not set; tests/interop/run.sh sets it");
    }
    folder
}

fn encoder_config() -> EncoderConfig {
    EncoderConfig {
        bert: BertConfig {
            model_type: "dpr".into(),
            vocab_size: VOCABULARY,
            hidden_size: HIDDEN,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 48,
            max_position_embeddings: 40,
            initializer_range: 0.15,
            ..BertConfig::default()
        },
        ..EncoderConfig::default()
    }
}

fn generators() -> [(&'static str, RagModel, GeneratorConfig); 3] {
    let bart = BartConfig {
        vocab_size: VOCABULARY,
        d_model: HIDDEN,
        encoder_layers: 2,
        decoder_layers: 2,
        encoder_attention_heads: 4,
        decoder_attention_heads: 4,
        encoder_ffn_dim: 48,
        decoder_ffn_dim: 64,
        max_position_embeddings: 40,
        init_std: 0.15,
        forced_bos_token_id: Some(0),
        ..BartConfig::default()
    };
    let t5 = T5Config {
        vocab_size: VOCABULARY,
        d_model: HIDDEN,
        d_kv: 6,
        d_ff: 48,
        num_layers: 2,
        num_decoder_layers: Some(2),
        num_heads: 4,
        relative_attention_num_buckets: 16,
        relative_attention_max_distance: 20,
        ..T5Config::default()
    };
    let gated = T5Config {
        feed_forward_proj: "gated-gelu".into(),
        tie_word_embeddings: false,
        ..t5.clone()
    };
    [
        ("bart", RagModel::Token, GeneratorConfig::Bart(bart)),
        ("t5", RagModel::Sequence, GeneratorConfig::T5(t5)),
        ("t5-gated", RagModel::Token, GeneratorConfig::T5(gated)),
    ]
}

/// Two inputs of an encoder, the second padded.
fn rag_case_inputs() -> (Vec<Vec<i64>>, Vec<Vec<i64>>) {
    let ids = vec![vec![2, 9, 14, 33, 7, 52, 3], vec![2, 21, 40, 3, 0, 0, 0]];
    let mask = vec![vec![1; 7], vec![1, 1, 1, 1, 0, 0, 0]];
    (ids, mask)
}

/// Two questions, each with two contexts of which one is padded.
fn rag_case(checkpoint: &Checkpoint) -> RagCase {
    let generation = checkpoint.config.generator.generation();
    let pad = i64::from(checkpoint.config.generator.pad());
    let start = i64::from(generation.start_token().unwrap());
    let end = i64::from(generation.eos_token_id[0]);
    let (question_ids, question_mask) = rag_case_inputs();
    let words = |first: i64, length: i64| -> Vec<i64> {
        let padding = std::iter::repeat_n(pad, (10 - length) as usize);
        (0..length)
            .map(|i| 5 + (first + 11 * i) % 53)
            .chain(padding)
            .collect()
    };
    let mask = |length: usize| (0..10).map(|i| i64::from(i < length)).collect();
    RagCase {
        question_ids,
        question_mask,
        question_vectors: Vec::new(),
        context_ids: vec![words(3, 10), words(8, 6), words(1, 7), words(30, 10)],
        context_mask: vec![mask(10), mask(6), mask(7), mask(10)],
        doc_scores: vec![vec![1.5, 0.25], vec![-0.5, 0.75]],
        decoder_ids: vec![
            vec![start, 17, 29, 44, 8, end],
            vec![start, 12, 51, 6, 38, 20],
        ],
        logits: Vec::new(),
        rag_token_log_probs: Vec::new(),
    }
}

/// Fills in the outputs.
fn evaluate(checkpoint: &Checkpoint, case: &mut RagCase, device: &Device) {
    let Checkpoint {
        question_encoder,
        generator,
        ..
    } = checkpoint;
    case.question_vectors = encode(
        question_encoder,
        &case.question_ids,
        &case.question_mask,
        device,
    );

    let tokens = TokenBatch {
        ids: tensor(&case.context_ids, device),
        mask: tensor(&case.context_mask, device),
    };
    let memory = generator.encode(&tokens, Precision::F32);
    let decoder_ids = tensor(&case.decoder_ids, device);
    let [batch, length] = decoder_ids.dims();
    let n_docs = memory.contexts() / batch;
    let first: Vec<usize> = (0..batch * n_docs).step_by(n_docs).collect();
    let logits = generator.decode(
        decoder_ids.clone(),
        &memory.select(&first),
        &mut Default::default(),
        Precision::F32,
    );
    case.logits = by_row(logits);

    let scores = tensor_of(case.doc_scores.concat(), [batch, n_docs], device);
    let prior = log_prior(scores).reshape([batch, n_docs, 1, 1]);
    let log_probs = likelihood::log_probs(generator, &memory, decoder_ids, Precision::F32);
    let marginal = log_sum_exp(log_probs + prior, 1);
    case.rag_token_log_probs = by_row(marginal.reshape([batch, length, VOCABULARY]));
}

fn encode(
    encoder: &Encoder,
    ids: &[Vec<i64>],
    mask: &[Vec<i64>],
    device: &Device,
) -> Vec<Vec<f32>> {
    let tokens = TokenBatch {
        ids: tensor(ids, device),
        mask: tensor(mask, device),
    };
    let vectors = encoder.forward(&tokens, None, Precision::F32);
    let width = vectors.dims()[1];
    values(vectors).chunks(width).map(<[f32]>::to_vec).collect()
}

fn tensor(rows: &[Vec<i64>], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), device)
}

fn tensor_of(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().iter::<f32>().collect()
}

fn by_row(tensor: Tensor<3>) -> Vec<Vec<Vec<f32>>> {
    let [_, length, width] = tensor.dims();
    values(tensor)
        .chunks(length * width)
        .map(|row| row.chunks(width).map(<[f32]>::to_vec).collect())
        .collect()
}

/// BERT's, with a handful of words.
fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    let words = format!("[PAD] [UNK] [CLS] [SEP] [MASK] {WORDS}").replace(' ', "\n");
    fs::write(&path, words).unwrap();
    Tokenizer::from_bert_vocabulary(&path, true).unwrap()
}

fn write(folder: &Path, case: &impl Serialize) {
    let text = serde_json::to_string(case).unwrap();
    fs::write(folder.join("interop.json"), text).unwrap();
}

fn read<T: DeserializeOwned>(folder: &Path) -> T {
    let text = fs::read_to_string(folder.join("interop.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}
