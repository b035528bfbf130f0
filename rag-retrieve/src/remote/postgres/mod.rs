mod condition;
mod connect;
mod write;

use std::{fmt, future::Future, path::PathBuf, time::Duration};

use deadpool_postgres::{Client, Pool};
use futures_util::future::try_join_all;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, aview1};
use pgvector::{HalfVector, Vector};
use rag_core::Passage;
use tokio_postgres::{
    Row,
    types::{Json, ToSql},
};

pub use self::write::Hnsw;
use self::{
    condition::Condition,
    connect::{Failure, pool},
};
use super::{FORMAT_VERSION, check_name, in_order, matrix};
use crate::{
    error::{Error, Result},
    filter::Filter,
    index::{Hit, Storage, check_queries, check_scores, error::IndexError},
    knowledge::{Fingerprint, Knowledge, Selection, error::KnowledgeError},
    remote::error::RemoteError,
};

/// The servers that speak PostgreSQL's protocol and have pgvector. For YugabyteDB and CockroachDB there
/// is room, and nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// One server, with replicas or without.
    #[default]
    Postgres,
    /// PostgreSQL with the extension Citus: passages are distributed by their ids.
    Citus,
}

/// How a server is spoken to.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// Which kind of server it is.
    pub dialect: Dialect,
    /// Candidates that a search of the HNSW index keeps (`ef_search`), at least as many as it is asked for:
    /// more find more of the true neighbours, and take longer.
    pub width: usize,
    /// How long an answer is waited for, with all that it takes to get one from a server that is gone for a
    /// while. Counting 10⁸ passages takes longer than a minute.
    pub patience: Duration,
    /// Connections at most, which share a batch of questions.
    pub connections: usize,
    /// Certificate authorities in a PEM file, beside those of the system.
    pub authorities: Option<PathBuf>,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            dialect: Dialect::default(),
            width: 100,
            patience: Duration::from_secs(60),
            connections: 4,
            authorities: None,
        }
    }
}

/// A knowledge base in PostgreSQL with [pgvector](https://github.com/pgvector/pgvector), on one server or
/// distributed over many. Clones share its connections.
///
/// Vectors are found by those that HNSW keeps in half precision, or by all of them before
/// [`build_index`](Self::build_index), and scored anew, as exactly as they are stored.
///
/// ```no_run
/// # use rag_retrieve::{Embedder, Storage, TextEncoder, remote::PostgresKnowledge};
/// # use rag_core::Passage;
/// # fn example(encoder: TextEncoder, passages: Vec<Passage>) -> rag_retrieve::Result<()> {
/// let knowledge = PostgresKnowledge::create(
///     "postgresql://user@host/database?sslmode=require",
///     "wikipedia",
///     &encoder.fingerprint()?,
///     768,
///     Storage::F16,
///     Default::default(),
/// )?;
/// knowledge.upsert(passages, &encoder, |done| println!("{done} passages"))?;
/// knowledge.build_index(Default::default(), |_| {})?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresKnowledge {
    pool: Pool,
    table: String,
    encoder: Fingerprint,
    dimension: usize,
    storage: Storage,
    settings: PostgresSettings,
}

/// One of pgvector's limits: candidates at most.
const WIDEST: usize = 1000;

/// The longest vectors that its HNSW takes, in half precision.
const LONGEST: usize = 4000;

/// Candidates beyond the passages that are asked for, at least: vectors are compared in half precision, and
/// the order among candidates is settled by the vectors as they are stored.
const RESCORED: usize = 50;

impl PostgresKnowledge {
    /// Makes an empty knowledge base for vectors of this encoder, or opens it where it is there already: any
    /// number of machines may do so at once.
    ///
    /// `address` is a URL (`postgresql://user:password@host/database`) or `host=… user=… dbname=…`; with
    /// `sslmode=require` nothing is sent without TLS.
    ///
    /// # Errors
    /// [`RemoteError::Address`], [`RemoteError::TableName`], [`IndexError::Dimension`]; [`KnowledgeError::OtherEncoder`] and [`RemoteError::OtherTable`] where there is
    /// another one of the name; [`RemoteError::Database`].
    pub fn create(
        address: &str,
        table: &str,
        encoder: &Fingerprint,
        dimension: usize,
        storage: Storage,
        settings: PostgresSettings,
    ) -> Result<Self> {
        check_name(table)?;
        if !(1..=LONGEST).contains(&dimension) {
            return Err(IndexError::Dimension {
                what: "vectors of an index of PostgreSQL",
                expected: format!("1 to {LONGEST}"),
                found: dimension,
            }
            .into());
        }
        let pool = connect(address, &settings)?;
        let made = Self {
            pool,
            table: table.to_owned(),
            encoder: encoder.clone(),
            dimension,
            storage,
            settings,
        };
        made.run("make a knowledge base", |client| made.make(client))?;
        let there = Self::described(made.pool.clone(), table, made.settings.clone())?;
        there.encoder.check(encoder)?;
        let differs = |what, found: String, expected: String| {
            Err(RemoteError::OtherTable {
                table: table.to_owned(),
                what,
                found,
                expected,
            }
            .into())
        };
        if there.dimension != dimension {
            return differs(
                "vectors of dimension",
                there.dimension.to_string(),
                dimension.to_string(),
            );
        }
        if there.storage != storage {
            let [found, expected] = [there.storage, storage].map(|some| format!("{some:?}"));
            return differs("numbers in", found, expected);
        }
        Ok(there)
    }

    /// Opens a knowledge base that was [made](Self::create).
    ///
    /// # Errors
    /// [`RemoteError::NoTable`]; those of [`PostgresKnowledge::create`].
    pub fn open(address: &str, table: &str, settings: PostgresSettings) -> Result<Self> {
        check_name(table)?;
        Self::described(connect(address, &settings)?, table, settings)
    }

    /// As the catalogue describes it.
    fn described(pool: Pool, table: &str, settings: PostgresSettings) -> Result<Self> {
        let patience = settings.patience;
        let attempt = async || {
            let client = pool.get().await?;
            let there =
                "SELECT to_regclass('rag_knowledge') IS NOT NULL AND to_regclass($1) IS NOT NULL";
            if !client
                .query_one(there, &[&quoted(table)])
                .await?
                .get::<_, bool>(0)
            {
                return Ok::<_, Failure>(None);
            }
            let described = "SELECT format_version, encoder, description, dimension, storage FROM rag_knowledge WHERE name = $1";
            Ok(client.query_opt(described, &[&table]).await?)
        };
        let found = within(patience, attempt);
        let row = found
            .map_err(|failure| failure.into_error("describe a knowledge base"))?
            .ok_or_else(|| {
                Error::Remote(RemoteError::NoTable {
                    table: table.to_owned(),
                })
            })?;
        let version: i32 = row.get("format_version");
        let storage: String = row.get("storage");
        let storage = match (u32::try_from(version), &storage[..]) {
            (Ok(FORMAT_VERSION), "f32") => Storage::F32,
            (Ok(FORMAT_VERSION), "f16") => Storage::F16,
            _ => {
                return Err(RemoteError::OtherTable {
                    table: table.to_owned(),
                    what: "the layout",
                    found: format!("{version} of {storage}"),
                    expected: format!("{FORMAT_VERSION} of f32 or f16"),
                }
                .into());
            }
        };
        Ok(Self {
            pool,
            table: table.to_owned(),
            encoder: Fingerprint::new(
                row.get::<_, String>("encoder"),
                row.get::<_, String>("description"),
            ),
            dimension: row.get::<_, i32>("dimension") as usize,
            storage,
            settings,
        })
    }

    /// Runs `work` with a connection of the pool, and again after failures that pass.
    fn run<T: Send, F>(&self, doing: &'static str, work: impl Fn(Client) -> F + Sync) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let attempt = async || work(self.pool.get().await?).await;
        within(self.settings.patience, attempt).map_err(|failure| failure.into_error(doing))
    }

    /// The expression that HNSW indexes: vectors of halves.
    fn halves(&self) -> String {
        match self.storage {
            Storage::F16 => "vector".to_owned(),
            Storage::F32 => format!("vector::halfvec({})", self.dimension),
        }
    }

    /// A stored vector.
    fn vector(&self, row: &Row) -> Result<Vec<f32>, Failure> {
        Ok(match self.storage {
            Storage::F32 => row.try_get::<_, Vector>("vector")?.into(),
            Storage::F16 => {
                let halves: HalfVector = row.try_get("vector")?;
                halves.as_slice().iter().map(|half| half.to_f32()).collect()
            }
        })
    }

    /// The `k` best of each of some queries.
    async fn nearest(
        &self,
        mut client: Client,
        queries: ArrayView2<'_, f32>,
        k: usize,
        among: Option<&Selection>,
    ) -> Result<Vec<Vec<Hit>>, Failure> {
        let limit = k.saturating_add(k.max(RESCORED));
        let condition = Condition::new(among.map(|among| &among.filter), 2);
        let expected = among.map_or(k, |among| k.min(among.passages));
        let (table, halves) = (quoted(&self.table), self.halves());
        let sql = format!(
            "SELECT position, vector FROM {table} WHERE {} ORDER BY {halves} <#> $1 LIMIT $2",
            condition.sql
        );
        let transaction = client.build_transaction().read_only(true);
        let isolation = tokio_postgres::IsolationLevel::RepeatableRead;
        let transaction = transaction.isolation_level(isolation).start().await?;
        let width = self.settings.width.max(limit).clamp(1, WIDEST);
        // Fewer candidates than rows asked for would mean fewer rows, and so would a filter, unless the
        // scan goes on. A plan for any limit would not use the index.
        let settings = format!(
            "{} SET LOCAL hnsw.ef_search = {width}; SET LOCAL hnsw.iterative_scan = relaxed_order;
             SET LOCAL plan_cache_mode = force_custom_plan",
            self.settings.dialect.settings()
        );
        transaction.batch_execute(&settings).await?;
        // Filters have many shapes; what each was prepared as goes with it.
        let statement = match among {
            None => transaction.prepare_cached(&sql).await?,
            Some(_) => transaction.prepare(&sql).await?,
        };
        let mut found = Vec::new();
        for query in queries.rows() {
            let halved = HalfVector::from_f32_slice(&scaled(query));
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&halved, &limit];
            parameters.extend(condition.references());
            let mut rows = transaction.query(&statement, &parameters).await?;
            if rows.len() < expected {
                // HNSW gives up after so many tuples; a scan of all does not.
                let scan = "SET LOCAL enable_indexscan = off";
                transaction.batch_execute(scan).await?;
                rows = transaction.query(&statement, &parameters).await?;
                let scan = "SET LOCAL enable_indexscan = on";
                transaction.batch_execute(scan).await?;
            }
            let hits = rows.iter().map(|row| {
                Ok(Hit {
                    position: row.try_get::<_, i64>("position")? as usize,
                    score: aview1(&self.vector(row)?).dot(&query),
                })
            });
            let mut hits: Vec<Hit> = hits.collect::<Result<_, Failure>>()?;
            hits.sort_by(Hit::rank);
            hits.truncate(k);
            found.push(hits);
        }
        transaction.commit().await?;
        Ok(found)
    }

    /// Rows of positions, with what `read` makes of each.
    fn at<T: Clone + Send>(
        &self,
        doing: &'static str,
        columns: &str,
        positions: &[usize],
        read: impl Fn(&Row) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>> {
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let table = quoted(&self.table);
        let sql =
            format!("SELECT position, {columns} FROM {table} WHERE position = ANY($1::bigint[])");
        let wanted: Vec<i64> = positions.iter().map(|&position| position as i64).collect();
        let found = self.run(doing, async |client| {
            let rows = client.query(&sql, &[&wanted]).await?;
            let read = rows.iter().map(|row| {
                let position: i64 = row.try_get("position")?;
                Ok((position as usize, read(row)?))
            });
            read.collect::<Result<Vec<_>, Failure>>()
        })?;
        in_order(positions, found)
    }
}

impl Knowledge for PostgresKnowledge {
    fn encoder(&self) -> &Fingerprint {
        &self.encoder
    }

    fn count(&self) -> Result<usize> {
        let sql = format!("SELECT count(*) FROM {}", quoted(&self.table));
        let count = self.run("count passages", async |client| {
            Ok(client.query_one(&sql, &[]).await?.try_get::<_, i64>(0)?)
        })?;
        Ok(count as usize)
    }

    fn select(&self, filter: &Filter) -> Result<Selection> {
        let table = quoted(&self.table);
        let condition = Condition::new(Some(filter), 0);
        let known = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE metadata ? $1::text)");
        let fields = format!(
            "SELECT DISTINCT jsonb_object_keys(metadata) FROM (SELECT metadata FROM {table} LIMIT 10000) AS sample"
        );
        let matching = format!("SELECT count(*) FROM {table} WHERE {}", condition.sql);
        let passages = self.run("find what a filter means", async |client| {
            for field in filter.fields() {
                if client.query_one(&known, &[&field]).await?.try_get(0)? {
                    continue;
                }
                let rows = client.query(&fields, &[]).await?;
                let known = rows.iter().map(|row| row.try_get(0));
                return Err(Failure::from(Error::Knowledge(
                    KnowledgeError::UnknownField {
                        field: field.to_owned(),
                        known: known.collect::<Result<_, _>>()?,
                    },
                )));
            }
            let parameters: Vec<_> = condition.references().collect();
            let count = client.query_one(&matching, &parameters).await?;
            Ok(count.try_get::<_, i64>(0)?)
        })?;
        Ok(Selection {
            filter: filter.clone(),
            passages: passages as usize,
            positions: None,
        })
    }

    fn search(
        &self,
        queries: ArrayView2<f32>,
        k: usize,
        among: Option<&Selection>,
    ) -> Result<Vec<Vec<Hit>>> {
        check_queries(queries, self.dimension)?;
        if queries.is_empty() || k == 0 {
            return Ok(vec![Vec::new(); queries.nrows()]);
        }
        let some = queries.nrows().div_ceil(self.settings.connections.max(1));
        let attempt = async || {
            let parts = queries.axis_chunks_iter(Axis(0), some).map(async |part| {
                let client = self.pool.get().await?;
                self.nearest(client, part, k, among).await
            });
            try_join_all(parts).await
        };
        let found = within(self.settings.patience, attempt);
        let found = found
            .map_err(|failure| failure.into_error("search"))?
            .concat();
        check_scores(&found)?;
        Ok(found)
    }

    fn passages_at(&self, positions: &[usize]) -> Result<Vec<Passage>> {
        let columns = "id, title, text, source, metadata";
        self.at("read passages", columns, positions, |row| {
            let source: Option<Json<_>> = row.try_get("source")?;
            let Json(metadata) = row.try_get("metadata")?;
            Ok(Passage {
                id: row.try_get("id")?,
                title: row.try_get("title")?,
                text: row.try_get("text")?,
                source: source.map(|Json(source)| source),
                metadata,
            })
        })
    }

    fn vectors_at(&self, positions: &[usize]) -> Result<Array2<f32>> {
        let rows = self.at("read vectors", "vector", positions, |row| self.vector(row))?;
        Ok(matrix(rows, self.dimension))
    }
}

impl fmt::Debug for PostgresKnowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresKnowledge")
            .field("table", &self.table)
            .field("encoder", &self.encoder)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Dialect {
    /// The statement that a transaction needs before its settings.
    fn settings(self) -> &'static str {
        match self {
            Self::Postgres => "",
            // Else the nodes that hold the shards would not hear of them.
            Self::Citus => "SET LOCAL citus.propagate_set_commands = 'local';",
        }
    }
}

fn connect(address: &str, settings: &PostgresSettings) -> Result<Pool> {
    let PostgresSettings {
        connections,
        patience,
        authorities,
        ..
    } = settings;
    pool(address, *connections, *patience, authorities.as_deref())
}

/// Waits for what `attempt` comes to.
fn within<T: Send, F>(
    patience: Duration,
    attempt: impl Fn() -> F + Send + Sync,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>> + Send,
{
    let silence = || Failure::Silence(patience);
    super::within(patience, silence, Failure::is_transient, attempt)
}

/// A checked name, as SQL takes it whatever words it knows.
fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// A query with its largest number at one, which fits half precision: the order of inner products is the
/// same.
fn scaled(query: ArrayView1<f32>) -> Vec<f32> {
    let largest = (query.iter()).fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = if largest > 0.0 { largest } else { 1.0 };
    query.iter().map(|value| value / scale).collect()
}
