//! How well passages are found, on a corpus with judged questions: by an encoder's vectors, by BM25 of
//! their words, and by both.
//!
//! ```text
//! cargo run --release --example retrieval <sentence encoder folder> <corpus folder> --fit <another corpus folder>
//! ```
//!
//! The encoder is a Hugging Face folder of BERT's kind (all-MiniLM, BGE, E5, DPR). The corpus is either
//!
//! - BEIR's: `corpus.jsonl` {id, title, text}, `queries.jsonl` {id, text} and `qrels.tsv` with query,
//!   document and relevance in each line: prints nDCG@10 and recall@100; or
//! - question-answer pairs over passages: `passages.jsonl` {id, title, text} and `qa.jsonl` {question,
//!   answers, passage_id}: prints recall@1, @5 and @20, the share of questions whose own passage is
//!   among the best 1, 5 and 20.
//!
//! Vectors and words come together by the weights that a retriever learns from the passages alone, by
//! reciprocal ranks, and, with `--fit`, by weights that make right passages likely on the pairs of another
//! folder of the second kind. `--reranker` has a cross-encoder judge what both found.
//!
//! `--device`, or else `RAG_DEVICE`, chooses the device: `cpu` (default), or `wgpu` and `cuda` in
//! builds that have them. `-- --help` explains every argument.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use burn_rag::{
    prelude::*,
    retrieve::{CrossEncoder, DocumentError, Fusion, LexicalIndex, PriorWeights},
    train::fit_prior,
};
use clap::{CommandFactory, Parser, error::ErrorKind};
use serde::{Deserialize, de::DeserializeOwned};

/// Measures how well an encoder finds passages.
#[derive(Parser)]
#[command(name = "retrieval")]
struct Arguments {
    /// Folder of a sentence encoder
    encoder: PathBuf,
    /// Folder of a corpus with judged questions
    corpus: PathBuf,
    /// Folder of question-answer pairs over passages that the weights of vectors and words are fitted to
    #[arg(long)]
    fit: Option<PathBuf>,
    /// Folder of a cross-encoder, such as those of the family ms-marco-MiniLM
    #[arg(long)]
    reranker: Option<PathBuf>,
    /// Format of the encoder's matrix products: f32, bf16, f16 or int8
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Where to compute: cpu, and in builds that have them wgpu, cuda, or wgpu:1 for the second GPU
    #[arg(long, env = "RAG_DEVICE", default_value = "cpu")]
    device: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    burn_rag::cpu::keep_freed_pages();
    let arguments = Arguments::parse();
    let folder = &arguments.corpus;
    if folder.join("corpus.jsonl").is_file() {
        beir(&arguments)
    } else if folder.join("passages.jsonl").is_file() {
        passages_of_questions(&arguments)
    } else {
        let message = format!(
            "{} holds neither corpus.jsonl nor passages.jsonl",
            folder.display()
        );
        let error = Arguments::command().error(ErrorKind::ValueValidation, message);
        error.exit()
    }
}

/// Graded relevance of documents, as BEIR's datasets have it.
fn beir(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    const DEEPEST: usize = 100;
    let folder = &arguments.corpus;
    let judged = judgements(&folder.join("qrels.tsv"))?;
    let mut queries: Vec<Query> = json_lines(&folder.join("queries.jsonl"))?;
    queries.retain(|query| judged.contains_key(&query.id));
    let texts: Vec<&str> = queries.iter().map(|query| query.text.as_str()).collect();
    let questions = queries.len() as f64;
    for (way, retriever) in ways(arguments, &folder.join("corpus.jsonl"))? {
        let begun = Instant::now();
        let found = retriever.top_k(DEEPEST)?.retrieve(&texts)?;
        let searched = begun.elapsed().as_secs_f64();
        let (mut ndcg, mut recall) = (0.0, 0.0);
        for (query, found) in queries.iter().zip(found) {
            let relevances = &judged[&query.id];
            let ranked: Vec<u32> = found
                .iter()
                .map(|found| relevances.get(&found.passage.id).copied().unwrap_or(0))
                .collect();
            let all: Vec<u32> = relevances.values().copied().collect();
            ndcg += evaluate::ndcg(&ranked, &all, 10);
            recall += relevant(&ranked) / relevant(&all).max(1.0);
        }
        let (ndcg, recall) = (ndcg / questions, recall / questions);
        println!(
            "{way:<40} nDCG@10 {ndcg:.3}   recall@{DEEPEST} {recall:.3}   {questions} queries in {searched:.1} s"
        );
    }
    Ok(())
}

/// Questions that know the one passage that they were asked of.
fn passages_of_questions(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let folder = &arguments.corpus;
    let questions = read_pairs(folder.join("qa.jsonl"))?;
    for (way, retriever) in ways(arguments, &folder.join("passages.jsonl"))? {
        let begun = Instant::now();
        let recall = evaluate::recall(&retriever, &questions, &[1, 5, 20])?;
        println!(
            "{way:<40} recall@1 {:.3}   recall@5 {:.3}   recall@20 {:.3}   {} questions in {:.1} s",
            recall[0],
            recall[1],
            recall[2],
            questions.len(),
            begun.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// The ways to find passages of a corpus.
fn ways(
    arguments: &Arguments,
    corpus: &Path,
) -> Result<Vec<(&'static str, Retriever)>, Box<dyn Error>> {
    let device = device(&arguments.device)?;
    let encoder = TextEncoder::load(&arguments.encoder, &device)?;
    let encoder = encoder.with_precision(arguments.precision)?;
    let vectors = index(&encoder, corpus)?;
    let words = LexicalIndex::new(vectors.local()?.passages())?;
    // A word that vectors do not find is not to be missed: all passages are compared.
    let all = vectors.local()?.len();
    let both = vectors.clone().with_lexical(words)?.with_candidates(100);
    let only_words = PriorWeights {
        dense: 0.0,
        lexical: 1.0,
        rerank: 0.0,
    };
    let mut ways = vec![
        ("vectors", vectors),
        (
            "words (BM25)",
            both.clone().with_candidates(all).with_prior(only_words),
        ),
        ("both, by default", both.clone()),
        (
            "both, by reciprocal ranks",
            both.clone().with_fusion(Fusion::Ranks),
        ),
    ];
    let begun = Instant::now();
    let weights = both.weights()?;
    println!(
        "learnt from the passages in {:.2} s: {weights:?}",
        begun.elapsed().as_secs_f64()
    );
    if let Some(folder) = &arguments.fit {
        let known = index(&encoder, &folder.join("passages.jsonl"))?;
        let words = LexicalIndex::new(known.local()?.passages())?;
        let pairs = read_pairs(folder.join("qa.jsonl"))?;
        let weights = fit_prior(&known.with_lexical(words)?, &pairs)?;
        println!("fitted to {} pairs: {weights:?}", pairs.len());
        ways.push(("both, by fitted weights", both.clone().with_prior(weights)));
    }
    if let Some(folder) = &arguments.reranker {
        let reranker = CrossEncoder::load(folder, &device)?;
        ways.push(("both, reranked", both.with_reranker(reranker)));
    }
    Ok(ways)
}

/// The passages of a file, one a line, embedded for exact search. One encoder serves questions and
/// passages, as sentence encoders do.
fn index(encoder: &TextEncoder, corpus: &Path) -> Result<Retriever, Box<dyn Error>> {
    let documents = Documents::read(corpus, &Chunking::words(usize::MAX))?;
    println!("{documents}");
    let passages = documents.passages.len();
    let begun = Instant::now();
    let knowledge = build_knowledge_base(documents.passages, encoder, Storage::F32, |done| {
        eprint!("\rembedded {done} of {passages}");
    })?;
    eprintln!();
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "embedded {passages} passages in {seconds:.1} s: {:.1} passages/s",
        passages as f64 / seconds
    );
    Ok(Retriever::new(
        encoder.clone(),
        encoder.clone(),
        knowledge,
        1,
    )?)
}

#[derive(Deserialize)]
struct Query {
    #[serde(alias = "_id")]
    id: String,
    text: String,
}

/// Relevance by query and document. A header line, as BEIR's own files have one, is passed over.
fn judgements(path: &Path) -> Result<HashMap<String, HashMap<String, u32>>, Box<dyn Error>> {
    let mut judged: HashMap<String, HashMap<String, u32>> = HashMap::new();
    let text = fs::read_to_string(path).map_err(burn_rag::core::Error::io(path))?;
    for (i, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let relevance = fields.get(2).and_then(|relevance| relevance.parse().ok());
        match (&fields[..], relevance) {
            ([query, document, _], Some(relevance)) => {
                judged
                    .entry((*query).into())
                    .or_default()
                    .insert((*document).into(), relevance);
            }
            _ if i == 0 => {}
            _ => {
                return Err(
                    burn_rag::retrieve::Error::Document(DocumentError::TableLine {
                        file: path.display().to_string(),
                        line: i + 1,
                        expected: "query, document and relevance".into(),
                        found: format!("{line:?}"),
                    })
                    .into(),
                );
            }
        }
    }
    Ok(judged)
}

fn json_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, burn_rag::core::Error> {
    let text = fs::read_to_string(path).map_err(burn_rag::core::Error::io(path))?;
    let lines = serde_json::Deserializer::from_str(&text).into_iter::<T>();
    let lines: Result<Vec<T>, serde_json::Error> = lines.collect();
    lines.map_err(burn_rag::core::Error::json(path))
}

fn relevant(relevances: &[u32]) -> f64 {
    relevances
        .iter()
        .filter(|&&relevance| relevance > 0)
        .count() as f64
}
