//! Knowledge bases that a database keeps, for more passages than one machine holds. Sharding,
//! replication and failover are the database's.

pub(crate) mod error;
#[cfg(feature = "milvus")]
mod milvus;
#[cfg(feature = "postgres")]
mod postgres;
mod shard;
mod upsert;

use std::{
    collections::HashMap, future::Future, ops::Bound, sync::LazyLock, thread, time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
pub use error::RemoteError;
#[cfg(feature = "milvus")]
pub use milvus::{MilvusKnowledge, MilvusSettings};
use ndarray::Array2;
#[cfg(feature = "postgres")]
pub use postgres::{Dialect, Hnsw, PostgresKnowledge, PostgresSettings};
use rag_core::{Passage, Value};
pub use shard::Shard;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    error::{Error, Result},
    knowledge::error::KnowledgeError,
};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the features `postgres` and `milvus` need positions of 64 bits");

/// Of the layout of tables and collections.
const FORMAT_VERSION: u32 = 1;

/// Connections live here, whoever asks.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let threads = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("rag-remote")
        .enable_all()
        .build();
    threads.expect("the system starts threads")
});

/// Waits for `future`, within a task of the caller's own runtime too.
fn wait<T: Send>(future: impl Future<Output = T> + Send) -> T {
    match Handle::try_current() {
        Ok(_) => thread::scope(|scope| {
            let waiting = scope.spawn(|| RUNTIME.block_on(future));
            (waiting.join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }),
        Err(_) => RUNTIME.block_on(future),
    }
}

/// Runs `attempt`, and again after failures that pass, for no longer than `patience`, pauses included; then it returns
/// `silence`.
fn within<T: Send, E, F>(
    patience: Duration,
    silence: impl Fn() -> E + Send,
    is_transient: impl Fn(&E) -> bool + Send + Sync,
    attempt: impl Fn() -> F + Send + Sync,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>> + Send,
    E: std::fmt::Display + Send,
{
    let deadline = Instant::now() + patience;
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build();
    wait(async {
        let mut last = None;
        loop {
            let error = match timeout_at(deadline, attempt()).await {
                Ok(Err(error)) if is_transient(&error) => error,
                Ok(done) => return done,
                Err(_) => return Err(last.unwrap_or_else(silence)),
            };
            let pause = pauses.next().unwrap_or_default();
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::warn!(%error, ?pause, "the database is asked again");
            sleep(pause).await;
            last = Some(error);
        }
    })
}

/// Where a passage is: the first 63 bits of a hash of all that is known of it. A changed passage is thus
/// elsewhere, and whoever asks for the old one is told that it is gone.
fn position(passage: &Passage) -> usize {
    let bytes = serde_json::to_vec(passage).expect("a passage is text, numbers and names");
    let hash = blake3::hash(&bytes);
    let first = u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"));
    (first >> 1) as usize
}

/// The values found at positions, in the order of the positions.
fn in_order<T: Clone>(positions: &[usize], found: Vec<(usize, T)>) -> Result<Vec<T>> {
    let count = found.len();
    let found: HashMap<usize, T> = found.into_iter().collect();
    if found.len() < count {
        return Err(RemoteError::SharedPosition.into());
    }
    (positions.iter())
        .map(|&position| {
            found
                .get(&position)
                .cloned()
                .ok_or(Error::Knowledge(KnowledgeError::Gone { position }))
        })
        .collect()
}

/// Rows as a matrix.
fn matrix(rows: Vec<Vec<f32>>, dimension: usize) -> Array2<f32> {
    let mut vectors = Array2::zeros((rows.len(), dimension));
    for (row, mut vector) in rows.into_iter().zip(vectors.rows_mut()) {
        vector.assign(&ndarray::aview1(&row));
    }
    vectors
}

/// The value of a bound.
fn inside(bound: &Bound<Value>) -> Option<&Value> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

/// Conditions as one.
fn joined(parts: impl Iterator<Item = String>, by: &str, nothing: &str) -> String {
    let parts: Vec<String> = parts.map(|part| format!("({part})")).collect();
    match parts.is_empty() {
        true => nothing.to_owned(),
        false => parts.join(by),
    }
}

/// Refuses names that databases would not take alike, and that of PostgreSQL's list of knowledge bases.
fn check_name(name: &str) -> Result<()> {
    let letters = name.starts_with(|first: char| first.is_ascii_alphabetic());
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match letters && name.len() <= 40 && name.chars().all(word) && name != "rag_knowledge" {
        true => Ok(()),
        false => Err(RemoteError::TableName {
            name: name.to_owned(),
        }
        .into()),
    }
}
