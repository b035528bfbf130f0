use std::{collections::HashMap, time::Duration};

use deadpool_postgres::{Client, Object};
use ndarray::Array2;
use pgvector::{HalfVector, Vector};
use rag_core::{Passage, Value};
use tokio::{pin, select, time::interval};
use tokio_postgres::{
    binary_copy::BinaryCopyInWriter,
    types::{Json, ToSql},
};

use super::{Dialect, Failure, PostgresKnowledge, quoted};
use crate::{
    encoder::Embedder,
    error::{Error, Result},
    index::{Rows, Storage},
    knowledge::{Changes, Fingerprint, KnowledgeBase},
    remote::upsert::{self, Table},
    remote::{FORMAT_VERSION, error::RemoteError, wait},
};

/// How an HNSW index is built (Malkov and Yashunin 2018).
#[derive(Clone, Copy, Debug)]
pub struct Hnsw {
    /// Neighbours of each vector (`m`).
    pub links: usize,
    /// Candidates that are compared for them (`ef_construction`).
    pub width: usize,
}

/// Those of pgvector.
impl Default for Hnsw {
    fn default() -> Self {
        Self {
            links: 16,
            width: 64,
        }
    }
}

/// A temporary table, by a name that no other table can have.
const WRITTEN: &str = "\"rag.written\"";

/// An id stands in an index, which takes so many bytes.
const LONGEST_ID: usize = 2000;

/// Who makes a knowledge base does so alone, wherever else it is tried.
const LOCK: i64 = 0x7261675f6b6e6f77;

impl PostgresKnowledge {
    /// Adds passages, and puts them in the place of those of the same ids. What is there as it is, is not
    /// embedded again: after an interruption the same call goes on where it was. Passages are written 1024
    /// at a time; `progress` hears how many are done. Of two of one id in a thousand this is an error, further
    /// apart the later stays.
    ///
    /// Any number of machines may do so at once, each with its [shard](crate::remote::Shard) of a corpus.
    ///
    /// # Errors
    /// [`KnowledgeError::OtherEncoder`](crate::KnowledgeError::OtherEncoder) for another encoder than that of the knowledge base, [`DocumentError::DuplicateId`](crate::DocumentError::DuplicateId),
    /// [`KnowledgeError::Metadata`](crate::KnowledgeError::Metadata), [`RemoteError::Unkept`], those of the encoder, [`IndexError::Dimension`](crate::IndexError::Dimension),
    /// [`IndexError::NotFinite`](crate::IndexError::NotFinite), [`IndexError::HalfRange`](crate::IndexError::HalfRange), [`RemoteError::Database`]; what was written before remains.
    pub fn upsert(
        &self,
        passages: impl IntoIterator<Item = Passage>,
        encoder: &(impl Embedder + ?Sized),
        progress: impl FnMut(usize),
    ) -> Result<Changes> {
        upsert::upsert(self, passages, encoder, progress)
    }

    /// Adds what a knowledge base of this process holds, with the vectors that it has.
    ///
    /// # Errors
    /// Those of [`PostgresKnowledge::upsert`].
    pub fn import(
        &self,
        knowledge: &KnowledgeBase,
        progress: impl FnMut(usize),
    ) -> Result<Changes> {
        upsert::import(self, knowledge, progress)
    }

    /// Deletes the passages of these ids; returns how many there were, or fewer where the connection was lost
    /// after some were deleted.
    ///
    /// # Errors
    /// [`RemoteError::Database`].
    pub fn delete(&self, ids: &[impl AsRef<str>]) -> Result<usize> {
        let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
        let sql = format!(
            "DELETE FROM {} WHERE id = ANY($1::text[])",
            quoted(&self.table)
        );
        let deleted = self.run("delete passages", async |client| {
            Ok(client.execute(&sql, &[&ids]).await?)
        })?;
        Ok(deleted as usize)
    }

    /// Builds what makes searches fast, once all passages are there: HNSW over their vectors, in half
    /// precision, and an index of what is known of them for filters. `progress` hears which share of the
    /// vectors is done. Meanwhile others may read, and what they write waits; afterwards the index follows what
    /// is written. It takes as long as it takes, whatever [`PostgresSettings::patience`](super::PostgresSettings)
    /// says, and nothing where there is an index.
    ///
    /// # Errors
    /// [`RemoteError::Database`].
    pub fn build_index(&self, hnsw: Hnsw, mut progress: impl FnMut(f64) + Send) -> Result<()> {
        let Hnsw { links, width } = hnsw;
        let (table, name) = (quoted(&self.table), &self.table);
        let build = format!(
            "CREATE INDEX IF NOT EXISTS \"{name}.vector\" ON {table} USING hnsw (({}) halfvec_ip_ops)
             WITH (m = {links}, ef_construction = {width});
             CREATE INDEX IF NOT EXISTS \"{name}.metadata\" ON {table} USING gin (metadata);
             ANALYZE {table}",
            self.halves()
        );
        let done =
            "SELECT tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE pid = $1";
        let work = async {
            let builder = Object::take(self.pool.get().await?);
            builder.batch_execute("SET statement_timeout = 0").await?;
            let builds = builder.query_one("SELECT pg_backend_pid()", &[]).await?;
            let pid: i32 = builds.try_get(0)?;
            let watching = async {
                let mut ticks = interval(Duration::from_millis(500));
                loop {
                    ticks.tick().await;
                    // Whoever cannot be asked is asked later.
                    let Ok(watcher) = self.pool.get().await else {
                        continue;
                    };
                    if let Ok(Some(row)) = watcher.query_opt(done, &[&pid]).await {
                        let (done, total): (i64, i64) = (row.get(0), row.get(1));
                        if total > 0 {
                            progress(done as f64 / total as f64);
                        }
                    }
                }
            };
            select! {
                built = builder.batch_execute(&build) => Ok::<_, Failure>(built?),
                () = watching => unreachable!("it watches until the index is built"),
            }
        };
        wait(work).map_err(|failure| failure.into_error("build an index"))
    }

    /// Makes what is not there.
    pub(super) async fn make(&self, mut client: Client) -> Result<(), Failure> {
        let (table, name, dimension) = (quoted(&self.table), &self.table, self.dimension);
        let numbers = match self.storage {
            Storage::F32 => "vector",
            Storage::F16 => "halfvec",
        };
        let transaction = client.transaction().await?;
        transaction
            .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
            .await?;
        transaction
            .batch_execute(
                "CREATE EXTENSION IF NOT EXISTS vector;
                 CREATE TABLE IF NOT EXISTS rag_knowledge (
                    name text PRIMARY KEY,
                    format_version integer NOT NULL,
                    encoder text NOT NULL,
                    description text NOT NULL,
                    dimension integer NOT NULL,
                    storage text NOT NULL
                 )",
            )
            .await?;
        let is_table = "SELECT to_regclass($1) IS NOT NULL";
        if transaction
            .query_one(is_table, &[&table])
            .await?
            .try_get(0)?
        {
            let listed = "SELECT count(*) FROM rag_knowledge WHERE name = $1";
            let listed: i64 = transaction.query_one(listed, &[name]).await?.try_get(0)?;
            if listed == 0 {
                return Err(Failure::from(Error::Remote(RemoteError::OtherTable {
                    table: name.clone(),
                    what: "no entry in rag_knowledge",
                    found: "but is a table".to_owned(),
                    expected: "a knowledge base, or no such table".to_owned(),
                })));
            }
            return Ok(transaction.commit().await?);
        }
        transaction
            .batch_execute(&format!(
                "CREATE TABLE {table} (
                    id text PRIMARY KEY,
                    position bigint NOT NULL,
                    title text NOT NULL,
                    text text NOT NULL,
                    source jsonb,
                    metadata jsonb NOT NULL,
                    vector {numbers}({dimension}) NOT NULL
                 );
                 CREATE INDEX \"{name}.position\" ON {table} (position)"
            ))
            .await?;
        if self.settings.dialect == Dialect::Citus {
            transaction
                .execute(
                    "SELECT create_distributed_table($1::text::regclass, 'id')",
                    &[&table],
                )
                .await?;
        }
        let storage = format!("{:?}", self.storage).to_lowercase();
        transaction
            .execute(
                "INSERT INTO rag_knowledge VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (name) DO UPDATE SET format_version = $2, encoder = $3, description = $4,
                    dimension = $5, storage = $6",
                &[
                    name,
                    &(FORMAT_VERSION as i32),
                    &self.encoder.hash,
                    &self.encoder.description,
                    &(dimension as i32),
                    &storage,
                ],
            )
            .await?;
        Ok(transaction.commit().await?)
    }

    async fn copy(
        &self,
        mut client: Client,
        passages: &[(usize, Passage)],
        vectors: &Array2<f32>,
    ) -> Result<(), Failure> {
        let columns = "id, position, title, text, source, metadata, vector";
        let table = quoted(&self.table);
        let transaction = client.transaction().await?;
        transaction
            .batch_execute(&format!(
                "CREATE TEMPORARY TABLE {WRITTEN} (LIKE {table}) ON COMMIT DROP"
            ))
            .await?;
        let written = format!("SELECT {columns} FROM {WRITTEN}");
        let types: Vec<_> = (transaction.prepare(&written).await?.columns().iter())
            .map(|column| column.type_().clone())
            .collect();
        let sql = format!("COPY {WRITTEN} ({columns}) FROM STDIN (FORMAT binary)");
        let writer = BinaryCopyInWriter::new(transaction.copy_in(&sql).await?, &types);
        pin!(writer);
        for ((position, passage), vector) in passages.iter().zip(vectors.rows()) {
            let position = *position as i64;
            let (source, metadata) = (passage.source.as_ref().map(Json), Json(&passage.metadata));
            let vector: Box<dyn ToSql + Send + Sync> = match self.storage {
                Storage::F32 => Box::new(Vector::from(vector.to_vec())),
                Storage::F16 => Box::new(HalfVector::from_f32_slice(&vector.to_vec())),
            };
            let Passage {
                id, title, text, ..
            } = passage;
            let row: [&(dyn ToSql + Sync); 7] =
                [id, &position, title, text, &source, &metadata, &*vector];
            writer.as_mut().write(&row).await?;
        }
        writer.finish().await?;
        // In one order, so that two writers of the same ids wait for each other and not crosswise.
        let sql = format!(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {WRITTEN} ORDER BY id
             ON CONFLICT (id) DO UPDATE SET position = EXCLUDED.position, title = EXCLUDED.title,
                text = EXCLUDED.text, source = EXCLUDED.source, metadata = EXCLUDED.metadata,
                vector = EXCLUDED.vector"
        );
        transaction.execute(&sql, &[]).await?;
        Ok(transaction.commit().await?)
    }
}

impl Table for PostgresKnowledge {
    fn encoder(&self) -> &Fingerprint {
        &self.encoder
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn storage(&self) -> Storage {
        self.storage
    }

    fn positions_of(&self, ids: &[&str]) -> Result<HashMap<String, usize>> {
        let sql = format!(
            "SELECT id, position FROM {} WHERE id = ANY($1::text[])",
            quoted(&self.table)
        );
        self.run("look for passages", async |client| {
            let rows = client.query(&sql, &[&ids]).await?;
            let there = rows.iter().map(|row| {
                let position: i64 = row.try_get("position")?;
                Ok((row.try_get("id")?, position as usize))
            });
            there.collect()
        })
    }

    fn write(&self, passages: &[(usize, Passage)], vectors: &Array2<f32>) -> Result<()> {
        for (_, passage) in passages {
            check_kept(passage)?;
        }
        // Whatever they are stored as, they are compared in half precision.
        Rows::new(vectors.clone(), Storage::F16)?;
        self.run("write passages", |client| {
            self.copy(client, passages, vectors)
        })
    }
}

/// Refuses what the server would refuse, with all that is written beside it.
fn check_kept(passage: &Passage) -> Result<()> {
    if passage.id.len() > LONGEST_ID {
        return Err(RemoteError::Unkept {
            id: passage.id.clone(),
            reason: "PostgreSQL keeps ids of 2,000 bytes at most here",
        }
        .into());
    }
    let known = passage.metadata.iter().flat_map(|(field, value)| {
        let text = match value {
            Value::Text(text) => &text[..],
            Value::Flag(_) | Value::Number(_) => "",
        };
        [&field[..], text]
    });
    let file = passage.source.as_ref().map_or("", |source| &source.file);
    let texts = [&passage.id[..], &passage.title, &passage.text, file];
    match texts
        .into_iter()
        .chain(known)
        .any(|text| text.contains('\0'))
    {
        true => Err(RemoteError::Unkept {
            id: passage.id.clone(),
            reason: "PostgreSQL's texts have no character 0",
        }
        .into()),
        false => Ok(()),
    }
}
