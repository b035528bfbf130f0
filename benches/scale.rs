//! How a knowledge base grows: built, opened and searched in a folder, with a graph beside it, and kept by a
//! database. Each of `build`, `search`, `graph`, `postgres` and `milvus` is a process of its own, so that
//! memory is told apart:
//!
//! ```text
//! cargo bench --bench scale --features ann,postgres,milvus -- build --folder /tmp/million --count 1000000
//! cargo bench --bench scale --features ann,postgres,milvus -- search --folder /tmp/million
//! ```

mod common;

use std::{
    collections::HashSet,
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use burn_rag::{
    core::Passage,
    retrieve::{Fingerprint, Hit, Knowledge, KnowledgeBase, Storage},
};
use clap::{Parser, Subcommand};
use common::peak_resident_bytes;
use ndarray::{Array2, ArrayView2, Axis};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// How a knowledge base grows; nothing is measured without a command.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a knowledge base of clustered unit vectors in half precision, and questions near them
    Build {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        count: usize,
        #[arg(long, default_value_t = 384)]
        dimension: usize,
    },
    /// Opens it and searches all vectors
    Search {
        #[arg(long)]
        folder: PathBuf,
    },
    /// Makes a graph of it, or opens the one that is there, and searches that
    #[cfg(feature = "ann")]
    Graph {
        #[arg(long)]
        folder: PathBuf,
        /// One bit a number, instead of one byte
        #[arg(long)]
        binary: bool,
    },
    /// Copies it into PostgreSQL and searches there
    #[cfg(feature = "postgres")]
    Postgres {
        #[arg(long)]
        folder: PathBuf,
        /// postgresql://user@host/database
        #[arg(long)]
        address: String,
    },
    /// Copies it into Milvus and searches there
    #[cfg(feature = "milvus")]
    Milvus {
        #[arg(long)]
        folder: PathBuf,
        /// http://host:19530
        #[arg(long)]
        address: String,
    },
}

/// Ids of the true neighbours of each query.
type Truth = Vec<HashSet<String>>;

/// Hits of a query.
const K: usize = 10;

/// Queries.
const QUERIES: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().command {
        None => println!("skipped: no command; --help says which there are"),
        Some(Command::Build {
            folder,
            count,
            dimension,
        }) => build(&folder, count, dimension)?,
        Some(Command::Search { folder }) => {
            let begun = Instant::now();
            drop(KnowledgeBase::open_unverified(&folder)?);
            println!("opened in {:.3} s", begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            let knowledge = KnowledgeBase::open(&folder)?;
            let seconds = begun.elapsed().as_secs_f64();
            println!("opened, every byte checked, in {seconds:.3} s");
            let queries = queries(&folder, &knowledge)?;
            searches("all vectors", &knowledge, queries.view(), None)?;
        }
        #[cfg(feature = "ann")]
        Some(Command::Graph { folder, binary }) => graph(&folder, binary)?,
        #[cfg(feature = "postgres")]
        Some(Command::Postgres { folder, address }) => postgres(&folder, &address)?,
        #[cfg(feature = "milvus")]
        Some(Command::Milvus { folder, address }) => milvus(&folder, &address)?,
    }
    Ok(())
}

fn build(folder: &Path, count: usize, dimension: usize) -> Result<(), Box<dyn Error>> {
    let mut random = StdRng::seed_from_u64(7);
    let mut uniform = || random.random::<f32>() - 0.5;
    let centres = Array2::from_shape_simple_fn((1000, dimension), &mut uniform);
    let mut near = |rows: usize| {
        let mut vectors = Array2::zeros((rows, dimension));
        for (row, mut vector) in vectors.rows_mut().into_iter().enumerate() {
            vector.assign(&centres.row(row * 7919 % centres.nrows()));
            vector.mapv_inplace(|value| value + 0.5 * uniform());
            let norm = vector.dot(&vector).sqrt();
            vector /= norm;
        }
        vectors
    };
    let (vectors, queries) = (near(count), near(QUERIES));
    let passage = |n| {
        Passage::new(
            format!("{n}"),
            format!("Title {n}"),
            "A passage. ".repeat(50),
        )
    };
    let passages: Vec<Passage> = (0..count).map(passage).collect();
    let begun = Instant::now();
    let encoder = Fingerprint::new("0123456789abcdef", "clustered vectors");
    KnowledgeBase::new(passages, vectors, Storage::F16, encoder)?.save(folder)?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} passages of {dimension} numbers written in {seconds:.1} s");
    let queries = queries.as_slice().ok_or("queries lie row by row")?;
    fs::write(folder.join("queries.f32"), bytemuck::cast_slice(queries))?;
    memory();
    Ok(())
}

fn queries(folder: &Path, knowledge: &KnowledgeBase) -> Result<Array2<f32>, Box<dyn Error>> {
    let bytes = fs::read(folder.join("queries.f32"))?;
    let numbers = bytemuck::pod_collect_to_vec::<u8, f32>(&bytes);
    let dimension = knowledge.manifest().dimension;
    Ok(Array2::from_shape_vec((QUERIES, dimension), numbers)?)
}

/// Questions a second, alone and in batches, and the share of the true neighbours that they find.
fn searches(
    name: &str,
    knowledge: &dyn Knowledge,
    queries: ArrayView2<f32>,
    truth: Option<&Truth>,
) -> Result<(), Box<dyn Error>> {
    let timed = |batch: usize| -> Result<_, Box<dyn Error>> {
        let asked = if batch == 1 { 64 } else { QUERIES };
        let asked = queries.slice_axis(Axis(0), (0..asked).into());
        knowledge.search(asked.slice_axis(Axis(0), (0..batch).into()), K, None)?;
        let begun = Instant::now();
        let mut found = Vec::new();
        for some in asked.axis_chunks_iter(Axis(0), batch) {
            found.extend(knowledge.search(some, K, None)?);
        }
        Ok((asked.nrows() as f64 / begun.elapsed().as_secs_f64(), found))
    };
    let ((alone, _), (together, found)) = (timed(1)?, timed(64)?);
    print!("{name}: {alone:.1} questions a second alone, {together:.1} in batches of 64");
    if let Some(truth) = truth {
        let found = ids(knowledge, &found)?;
        let both = found
            .iter()
            .zip(truth)
            .map(|(found, truth)| found.intersection(truth).count());
        let recall = both.sum::<usize>() as f64 / (K * QUERIES) as f64;
        print!(", recall@{K} {recall:.3}");
    }
    println!();
    memory();
    Ok(())
}

fn ids(knowledge: &dyn Knowledge, found: &[Vec<Hit>]) -> Result<Truth, Box<dyn Error>> {
    let ids = found.iter().map(|hits| {
        let positions: Vec<usize> = hits.iter().map(|hit| hit.position).collect();
        let passages = knowledge.passages_at(&positions)?;
        Ok(passages.into_iter().map(|passage| passage.id).collect())
    });
    ids.collect()
}

#[cfg(any(feature = "ann", feature = "postgres", feature = "milvus"))]
fn with_truth(folder: &Path) -> Result<(KnowledgeBase, Array2<f32>, Truth), Box<dyn Error>> {
    let knowledge = KnowledgeBase::open_unverified(folder)?;
    let queries = queries(folder, &knowledge)?;
    let found = Knowledge::search(&knowledge, queries.view(), K, None)?;
    let truth = ids(&knowledge, &found)?;
    Ok((knowledge, queries, truth))
}

#[cfg(feature = "ann")]
fn graph(folder: &Path, binary: bool) -> Result<(), Box<dyn Error>> {
    use burn_rag::retrieve::{Code, GraphIndex, GraphSettings, Index};

    let (knowledge, queries, truth) = with_truth(folder)?;
    let (name, code) = if binary {
        ("graph-binary", Code::Binary)
    } else {
        ("graph", Code::I8)
    };
    let at = folder.join(name);
    if !at.is_dir() {
        let settings = GraphSettings {
            code,
            ..GraphSettings::default()
        };
        let begun = Instant::now();
        GraphIndex::build(knowledge.index(), settings, |_| {})?.save(&at)?;
        println!("graph built in {:.1} s", begun.elapsed().as_secs_f64());
        memory();
        return Ok(());
    }
    let begun = Instant::now();
    let mut graph = GraphIndex::open(&at, knowledge.index())?;
    println!("graph opened in {:.3} s", begun.elapsed().as_secs_f64());
    let widths = [20, 40, 80, 160].map(|width| if binary { 20 * width } else { width });
    for width in widths {
        graph = graph.with_search_width(width);
        let begun = Instant::now();
        let asked = queries.slice_axis(Axis(0), (0..64).into());
        for query in asked.axis_chunks_iter(Axis(0), 1) {
            graph.search(query, K)?;
        }
        let alone = 64.0 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let found = graph.search(queries.view(), K)?;
        let together = QUERIES as f64 / begun.elapsed().as_secs_f64();
        let found = ids(&knowledge, &found)?;
        let both = found
            .iter()
            .zip(&truth)
            .map(|(found, truth)| found.intersection(truth).count());
        let recall = both.sum::<usize>() as f64 / (K * QUERIES) as f64;
        println!(
            "width {width}: {alone:.1} questions a second alone, {together:.1} together, recall@{K} {recall:.3}"
        );
    }
    memory();
    Ok(())
}

#[cfg(feature = "postgres")]
fn postgres(folder: &Path, address: &str) -> Result<(), Box<dyn Error>> {
    use burn_rag::retrieve::remote::{Hnsw, PostgresKnowledge, PostgresSettings};

    let (knowledge, queries, truth) = with_truth(folder)?;
    let manifest = knowledge.manifest();
    let table = format!("scale_{}", knowledge.len());
    let (encoder, dimension) = (&manifest.encoder, manifest.dimension);
    let settings = PostgresSettings::default();
    let remote =
        PostgresKnowledge::create(address, &table, encoder, dimension, Storage::F16, settings)?;
    let begun = Instant::now();
    remote.import(&knowledge, |_| {})?;
    let rate = knowledge.len() as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} passages a second written");
    let asked = queries.slice_axis(Axis(0), (0..64).into());
    let begun = Instant::now();
    for query in asked.axis_chunks_iter(Axis(0), 1).take(8) {
        remote.search(query, K, None)?;
    }
    let rate = 8.0 / begun.elapsed().as_secs_f64();
    println!("before the index: {rate:.2} questions a second alone");
    let begun = Instant::now();
    remote.build_index(Hnsw::default(), |_| {})?;
    println!("index built in {:.1} s", begun.elapsed().as_secs_f64());
    for width in [20, 40, 100, 200] {
        let settings = PostgresSettings {
            width,
            ..PostgresSettings::default()
        };
        let remote = PostgresKnowledge::open(address, &table, settings)?;
        searches(
            &format!("width {width}"),
            &remote,
            queries.view(),
            Some(&truth),
        )?;
    }
    Ok(())
}

#[cfg(feature = "milvus")]
fn milvus(folder: &Path, address: &str) -> Result<(), Box<dyn Error>> {
    use burn_rag::retrieve::remote::{MilvusKnowledge, MilvusSettings};

    let (knowledge, queries, truth) = with_truth(folder)?;
    let manifest = knowledge.manifest();
    let collection = format!("scale_{}", knowledge.len());
    let (encoder, dimension) = (&manifest.encoder, manifest.dimension);
    let settings = MilvusSettings::default();
    let remote = MilvusKnowledge::create(address, &collection, encoder, dimension, settings)?;
    let begun = Instant::now();
    remote.import(&knowledge, |_| {})?;
    let rate = knowledge.len() as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} passages a second written");
    searches("Milvus", &remote, queries.view(), Some(&truth))
}

fn memory() {
    if let Some(bytes) = peak_resident_bytes() {
        println!(
            "peak resident memory {:.2} GiB",
            bytes as f64 / (1u64 << 30) as f64
        );
    }
}
