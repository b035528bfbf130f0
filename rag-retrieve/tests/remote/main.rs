//! Knowledge bases in databases: they find what a knowledge base of this process finds, whatever is written
//! meanwhile and whenever the server is gone for a while.
//!
//! `RAG_POSTGRES_BIN` is the folder of PostgreSQL's programs (with pgvector), `RAG_MILVUS_LITE` the program
//! `milvus-lite`; without them the tests say that they are skipped.

#![cfg(any(feature = "postgres", feature = "milvus"))]
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../../../tests/common/hashes.rs"]
mod hashes;
#[cfg(feature = "milvus")]
mod milvus;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod postgres_faults;
#[allow(dead_code)]
mod servers;

use std::{
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
};

use ndarray::Array2;
use rag_core::Passage;
use rag_retrieve::{Filter, Fingerprint, Hit, Knowledge, KnowledgeBase, Storage};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// A name that no expression takes as it is.
const ODD: &str = "a\"b]\\[_𠮷";

/// Passages with what a filter may ask for, and some without.
fn passages(count: usize) -> Vec<Passage> {
    let passage = |n: usize| {
        let passage = Passage::new(
            format!("标题-{n}"),
            format!("Title {n}"),
            format!("文本 {n}"),
        );
        let passage = match n % 4 {
            0 => passage
                .with("language", "en")
                .with("year", 2000 + (n % 40) as i32),
            1 => passage.with("language", "zh").with("year", 2000.5),
            2 => passage
                .with("language", "Ünïcode \"quoted\"")
                .with("draft", n.is_multiple_of(3)),
            _ => passage,
        };
        match n % 5 {
            2 => passage.with(ODD, n as f64),
            0 => passage
                .with("date", format!("2024-{:02}-01", 1 + n % 12))
                .with("it's", n as f64),
            1 => passage.with("year", "2004"),
            _ => passage,
        }
    };
    (0..count).map(passage).collect()
}

/// Vectors `[count, dimension]` of numbers that half precision rounds.
fn random_vectors(count: usize, dimension: usize, seed: u64) -> Array2<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((count, dimension), || random.random_range(-1.0..1.0))
}

fn knowledge(count: usize, dimension: usize, storage: Storage) -> KnowledgeBase {
    let encoder = Fingerprint::new("abc", "random numbers");
    let vectors = random_vectors(count, dimension, 3);
    KnowledgeBase::new(passages(count), vectors, storage, encoder).unwrap()
}

/// A server that takes connections and says nothing.
fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Says that it is over when it is dropped, by a panic too.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ids and scores of what was found.
fn ids(knowledge: &dyn Knowledge, found: &[Vec<Hit>]) -> Vec<Vec<(String, f32)>> {
    let ids = found.iter().map(|hits| {
        let positions: Vec<usize> = hits.iter().map(|hit| hit.position).collect();
        let passages = knowledge.passages_at(&positions).unwrap();
        let scores = hits.iter().map(|hit| hit.score);
        let ids = passages.into_iter().map(|passage| passage.id);
        ids.zip(scores).collect()
    });
    ids.collect()
}

/// That `remote` finds what `local`, whose passages it has, finds by a scan: the same passages, with scores
/// as exact.
fn finds_the_same(
    local: &KnowledgeBase,
    remote: &dyn Knowledge,
    k: usize,
    filter: Option<&Filter>,
) {
    let dimension = local.index().gather(&[0]).ncols();
    let queries = random_vectors(9, dimension, 5);
    let search = |knowledge: &dyn Knowledge| {
        let among = filter.map(|filter| knowledge.select(filter).unwrap());
        let found = knowledge.search(queries.view(), k, among.as_ref()).unwrap();
        (among.map(|among| among.passages), ids(knowledge, &found))
    };
    let (expected, found) = (search(local), search(remote));
    assert_eq!(expected.0, found.0, "{filter:?}");
    for (expected, found) in expected.1.iter().zip(&found.1) {
        assert_eq!(expected.len(), found.len(), "{filter:?}");
        for (expected, found) in expected.iter().zip(found) {
            assert_eq!(expected.0, found.0, "{filter:?}");
            assert!(
                (expected.1 - found.1).abs() < 1e-5,
                "{expected:?} {found:?}"
            );
        }
    }
}

/// Filters of every kind.
fn filters() -> Vec<Filter> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let year = |from, to| Filter::Within("year".to_owned(), from, to);
    vec![
        Filter::is("language", "en"),
        Filter::is("language", "Ünïcode \"quoted\""),
        Filter::one_of("language", ["zh", "fr"]),
        Filter::one_of("language", Vec::<String>::new()),
        Filter::is("year", 2004),
        Filter::is("year", "2004"),
        Filter::is("draft", false),
        Filter::within("draft", false..=false),
        Filter::within("year", 2000..2005),
        Filter::within("year", 2000.25..),
        Filter::within("year", "2000"..),
        Filter::within("it's", 3..=50),
        Filter::within("date", "2024-05-01"..="2024-07-01"),
        year(Included(5.into()), Excluded("x".into())),
        year(Excluded(f64::NEG_INFINITY.into()), Included(2003.into())),
        year(
            Included(f64::NEG_INFINITY.into()),
            Excluded(f64::INFINITY.into()),
        ),
        Filter::within("year", f64::INFINITY..),
        !Filter::is("year", f64::NEG_INFINITY),
        Filter::within(ODD, 20..),
        !Filter::is(ODD, 2),
        year(Unbounded, Unbounded),
        !Filter::is("language", "en"),
        !Filter::within("year", 2010..),
        Filter::is("language", "en") & Filter::within("year", ..2003),
        Filter::is("language", "zh") | (Filter::is("draft", true) & !Filter::is("year", "2004")),
        Filter::All(vec![]),
        Filter::Any(vec![]),
    ]
}
