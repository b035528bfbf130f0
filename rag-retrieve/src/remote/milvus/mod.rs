#![expect(
    clippy::result_large_err,
    reason = "it is the error of Milvus's client"
)]

mod condition;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    future::Future,
    path::PathBuf,
    time::Duration,
};

use milvus::v2::{
    error::Error as Failure,
    prelude::{
        ClientV2, CollectionSchema, ConnectConfig, ConsistencyLevel, DataType, FieldData,
        FieldSchema, IndexParam, IndexType, InsertRequest, MetricType, QueryRequest, SearchRequest,
        SearchVectors,
    },
    request::{
        collection::{
            CreateCollectionRequest, DescribeCollectionRequest, GetLoadStateRequest,
            HasCollectionRequest, LoadCollectionRequest,
        },
        dml::{DeleteRequest, UpsertRequest},
        index::{CreateIndexRequest, DescribeIndexRequest},
    },
    types::{LoadState, ResultRow, RetryConfig, TelemetryConfig},
};
use ndarray::{Array2, ArrayView2};
use rag_core::Passage;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

use self::condition::{by_kind, by_name, condition, exists};
use super::{
    FORMAT_VERSION, check_name, in_order, matrix,
    upsert::{self, Table},
};
use crate::{
    Changes, Embedder, Error, Filter, Hit, Knowledge, KnowledgeBase, Result, Selection, Storage,
    index::{check_queries, check_scores},
    knowledge::Fingerprint,
};

type Attempt<T> = std::result::Result<T, Failure>;

/// How a server is spoken to, and how its index is made and searched.
#[derive(Clone)]
pub struct MilvusSettings {
    /// `user:password` or an API key; none where the server asks for none.
    pub token: Option<String>,
    /// Neighbours of each vector in HNSW (`M`), where the knowledge base is made.
    pub links: usize,
    /// Candidates that are compared for them (`efConstruction`).
    pub build_width: usize,
    /// Candidates that a search keeps (`ef`), at least as many as it is asked for: more find more of the
    /// true neighbours, and take longer.
    pub width: usize,
    /// How long an answer is waited for, with all that it takes to get one from a server that is gone for a
    /// while.
    pub patience: Duration,
    /// Certificate authorities in a PEM file, in the place of the system's.
    pub authorities: Option<PathBuf>,
}

impl Default for MilvusSettings {
    fn default() -> Self {
        Self {
            token: None,
            links: 16,
            build_width: 200,
            width: 100,
            patience: Duration::from_secs(60),
            authorities: None,
        }
    }
}

/// A knowledge base in [Milvus](https://milvus.io), for more passages than PostgreSQL serves: the cluster
/// shards, replicates and indexes by itself. Clones share a connection.
///
/// Every search sees what was written before it. Passages are written 1024 at a time, without
/// transactions: a reader may see a part of them.
#[derive(Clone)]
pub struct MilvusKnowledge {
    client: ClientV2,
    collection: String,
    described: Described,
    settings: MilvusSettings,
}

/// What the collection says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Described {
    format_version: u32,
    encoder: Fingerprint,
    dimension: usize,
}

/// Where it is kept beside the description, which milvus-lite forgets.
const PROPERTY: &str = "rag.knowledge";

/// Bytes at most of a text, and of JSON.
const LONGEST: usize = 65_535;

/// Letters of a [`key`].
const KEY: usize = 64;

/// Rows that are asked for at a time.
const ASKED: usize = 1024;

impl MilvusKnowledge {
    /// Makes an empty knowledge base for vectors of this encoder, or opens it where it is there already.
    /// `address` is a URL, `http://host:19530`, or with `https` for TLS.
    ///
    /// # Errors
    /// [`Error::TableName`]; [`Error::OtherTable`] and [`Error::Encoder`] where there is another one of the
    /// name; [`Error::Database`].
    pub fn create(
        address: &str,
        collection: &str,
        encoder: &Fingerprint,
        dimension: usize,
        settings: MilvusSettings,
    ) -> Result<Self> {
        check_name(collection)?;
        let made = Self {
            client: connect(address, &settings)?,
            collection: collection.to_owned(),
            described: Described {
                format_version: FORMAT_VERSION,
                encoder: encoder.clone(),
                dimension,
            },
            settings,
        };
        made.ask("make a knowledge base", async || made.make().await)?;
        let there = Self::described(made.client.clone(), collection, made.settings.clone())?;
        there.described.encoder.check(encoder)?;
        match there.described.dimension == dimension {
            true => Ok(there),
            false => Err(Error::OtherTable {
                table: collection.to_owned(),
                what: "vectors of dimension",
                found: there.described.dimension.to_string(),
                expected: dimension.to_string(),
            }),
        }
    }

    /// Opens a knowledge base that was [made](Self::create).
    ///
    /// # Errors
    /// [`Error::NoTable`]; those of [`MilvusKnowledge::create`].
    pub fn open(address: &str, collection: &str, settings: MilvusSettings) -> Result<Self> {
        check_name(collection)?;
        Self::described(connect(address, &settings)?, collection, settings)
    }

    /// Adds passages, and puts them in the place of those of the same ids. What is there as it is, is not
    /// embedded again: after an interruption the same call goes on where it was. `progress` hears how many
    /// are done. Of two of one id in a thousand this is an error, further apart the later stays.
    ///
    /// Any number of machines may do so at once, each with its [shard](crate::remote::Shard) of a corpus.
    ///
    /// # Errors
    /// [`Error::Encoder`] for another encoder than that of the knowledge base, [`Error::DuplicateId`],
    /// [`Error::Metadata`], [`Error::Unkept`], those of the encoder, [`Error::Dimension`],
    /// [`Error::NotFinite`], [`Error::Database`]; what was written before remains.
    pub fn upsert(
        &self,
        passages: impl IntoIterator<Item = Passage>,
        encoder: &impl Embedder,
        progress: impl FnMut(usize),
    ) -> Result<Changes> {
        upsert::upsert(self, passages, encoder, progress)
    }

    /// Adds what a knowledge base of this process holds, with the vectors that it has.
    ///
    /// # Errors
    /// Those of [`MilvusKnowledge::upsert`].
    pub fn import(
        &self,
        knowledge: &KnowledgeBase,
        progress: impl FnMut(usize),
    ) -> Result<Changes> {
        upsert::import(self, knowledge, progress)
    }

    /// Deletes the passages of these ids; returns how many there were.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn delete(&self, ids: &[impl AsRef<str>]) -> Result<usize> {
        let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
        let mut deleted = 0;
        for ids in ids.chunks(ASKED) {
            let there = self.positions_of(ids)?;
            if there.is_empty() {
                continue;
            }
            let keys: Vec<String> = there.keys().map(|id| key(id)).collect();
            let condition = format!("key in {}", json!(keys));
            self.ask("delete passages", async || {
                let request = DeleteRequest::builder().collection_name(&self.collection);
                self.client
                    .delete(request.filter(&condition[..]).build()?)
                    .await
            })?;
            deleted += there.len();
        }
        Ok(deleted)
    }

    /// As the collection describes itself; ready to be searched.
    fn described(client: ClientV2, collection: &str, settings: MilvusSettings) -> Result<Self> {
        let found = within(settings.patience, async || {
            let has = HasCollectionRequest::builder().collection_name(collection);
            if !client.has_collection(has.build()?).await?.exists() {
                return Ok(None);
            }
            let describe = DescribeCollectionRequest::builder().collection_name(collection);
            let described = client.describe_collection(describe.build()?).await?;
            let described = described.description();
            let property = described.get_properties().get(PROPERTY);
            let text = property.map_or(described.get_description(), String::as_str);
            Ok(Some(text.to_owned()))
        });
        let text = found
            .map_err(|failure| error("describe a knowledge base", failure))?
            .ok_or_else(|| Error::NoTable {
                table: collection.to_owned(),
            })?;
        let described = match serde_json::from_str::<Described>(&text) {
            Ok(described) if described.format_version == FORMAT_VERSION => described,
            _ => {
                return Err(Error::OtherTable {
                    table: collection.to_owned(),
                    what: "the description",
                    found: text,
                    expected: format!("layout {FORMAT_VERSION} of a knowledge base"),
                });
            }
        };
        let opened = Self {
            client,
            collection: collection.to_owned(),
            described,
            settings,
        };
        opened.ask("load a knowledge base", async || opened.load().await)?;
        Ok(opened)
    }

    async fn make(&self) -> Attempt<()> {
        let has = HasCollectionRequest::builder().collection_name(&self.collection);
        if !self.client.has_collection(has.build()?).await?.exists() {
            let text = |name: &str, longest: usize| {
                let field = FieldSchema::new().name(name).data_type(DataType::VarChar);
                field.max_length(longest as u32)
            };
            let field = |name: &str, kind| FieldSchema::new().name(name).data_type(kind);
            let vector =
                field("vector", DataType::FloatVector).dimension(self.described.dimension as u32);
            let description = json!(self.described).to_string();
            let properties = HashMap::from([(PROPERTY.to_owned(), description.clone())]);
            let schema = CollectionSchema::new()
                .add_field(text("key", KEY).primary_key(true))
                .add_field(text("id", LONGEST))
                .add_field(field("position", DataType::Int64))
                .add_field(text("title", LONGEST))
                .add_field(text("text", LONGEST))
                .add_field(field("source", DataType::Json))
                .add_field(field("metadata", DataType::Json))
                .add_field(vector);
            let request = CreateCollectionRequest::builder().collection_name(&self.collection);
            let request = request
                .description(description)
                .properties(properties)
                .schema(schema);
            let created = self.client.create_collection(request.build()?).await;
            // Another machine may have been faster.
            let has = HasCollectionRequest::builder().collection_name(&self.collection);
            if !self.client.has_collection(has.build()?).await?.exists() {
                return created;
            }
        }
        let describe = DescribeIndexRequest::builder()
            .collection_name(&self.collection)
            .field_name("vector");
        match self.client.describe_index(describe.build()?).await {
            // There is none yet.
            Err(Failure::Server(_)) => {}
            described => return described.map(|_| ()),
        }
        let parameters = HashMap::from([
            ("M".to_owned(), self.settings.links.to_string()),
            (
                "efConstruction".to_owned(),
                self.settings.build_width.to_string(),
            ),
        ]);
        let index = IndexParam::new()
            .field_name("vector")
            .index_type(IndexType::Hnsw)
            .metric_type(MetricType::Ip)
            .extra_params(parameters);
        let request = CreateIndexRequest::builder().collection_name(&self.collection);
        let request = request.index_params(vec![index]).sync(false);
        self.client.create_index(request.build()?).await
    }

    /// What `work` comes to, once it does not fail for a while only.
    fn run<T: Send, F>(&self, work: impl Fn() -> F + Send + Sync) -> Attempt<T>
    where
        F: Future<Output = Attempt<T>> + Send,
    {
        within(self.settings.patience, async || match work().await {
            Err(failure) if is_unloaded(&failure) => {
                self.load().await?;
                Err(failure)
            }
            done => done,
        })
    }

    /// Like [`run`](Self::run), saying what failed.
    fn ask<T: Send, F>(&self, doing: &'static str, work: impl Fn() -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = Attempt<T>> + Send,
    {
        self.run(work).map_err(|failure| error(doing, failure))
    }

    /// What a condition finds, with what `read` makes of each row.
    async fn query<T>(
        &self,
        condition: &str,
        fields: &[&str],
        limit: Option<usize>,
        read: impl Fn(&ResultRow<'_>) -> Attempt<T>,
    ) -> Attempt<Vec<T>> {
        let mut request = QueryRequest::builder()
            .collection_name(&self.collection)
            .filter(condition)
            .output_fields(fields.iter().copied())
            .consistency_level(ConsistencyLevel::Strong);
        if let Some(limit) = limit {
            request = request.limit(limit as i64);
        }
        let found = self.client.query(request.build()?).await?;
        found.results().rows()?.map(|row| read(&row)).collect()
    }

    /// Has the server hold it in memory, where an operator has not done so, with as many replicas as are wanted.
    async fn load(&self) -> Attempt<()> {
        loop {
            let state = GetLoadStateRequest::builder().collection_name(&self.collection);
            match self.client.get_load_state(state.build()?).await?.state() {
                LoadState::Loaded => return Ok(()),
                LoadState::Loading => {}
                _ => {
                    let load = LoadCollectionRequest::builder().collection_name(&self.collection);
                    self.client
                        .load_collection(load.sync(false).build()?)
                        .await?;
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn counted(&self, condition: &str) -> Attempt<usize> {
        let counts = self.query(condition, &["count(*)"], None, |row| {
            row.get_i64("count(*)")
        });
        Ok(counts.await?.first().map_or(0, |&count| count as usize))
    }

    /// Rows of positions, with what `read` makes of each.
    fn at<T: Clone + Send>(
        &self,
        doing: &'static str,
        fields: &[&str],
        positions: &[usize],
        read: impl Fn(&ResultRow<'_>) -> Attempt<T> + Send + Sync,
    ) -> Result<Vec<T>> {
        let fields = [&["position"], fields].concat();
        let mut wanted = positions.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut found = Vec::new();
        for some in wanted.chunks(ASKED) {
            self.halving(doing, some, &mut |some| {
                let condition = format!("position in {some:?}");
                let rows = self.run(async || {
                    let row =
                        |row: &ResultRow<'_>| Ok((row.get_i64("position")? as usize, read(row)?));
                    self.query(&condition, &fields, None, row).await
                });
                rows.map(|rows| found.extend(rows))
            })?;
        }
        in_order(positions, found)
    }

    /// Does `work` with all of `items`, or, where that is more than a message holds, with one half and the
    /// other.
    fn halving<T>(
        &self,
        doing: &'static str,
        items: &[T],
        work: &mut impl FnMut(&[T]) -> Attempt<()>,
    ) -> Result<()> {
        match work(items) {
            Err(failure) if is_too_large(&failure) && items.len() > 1 => {
                let (first, second) = items.split_at(items.len() / 2);
                self.halving(doing, first, work)?;
                self.halving(doing, second, work)
            }
            done => done.map_err(|failure| error(doing, failure)),
        }
    }

    /// The `k` best of each query.
    async fn nearest(
        &self,
        queries: ArrayView2<'_, f32>,
        k: usize,
        filter: Option<&str>,
    ) -> Attempt<Vec<Vec<Hit>>> {
        let vectors = queries.rows().into_iter().map(|query| query.to_vec());
        let width = self.settings.width.max(k);
        let mut request = SearchRequest::builder()
            .collection_name(&self.collection)
            .vector_field("vector")
            .vectors(SearchVectors::Float(vectors.collect()))
            .output_fields(["position"])
            .limit(k as i64)
            .extra_params(HashMap::from([("ef".to_owned(), width.to_string())]))
            .consistency_level(ConsistencyLevel::Strong);
        if let Some(filter) = filter {
            request = request.filter(filter);
        }
        let found = self.client.search(request.build()?).await?;
        let mut nearest = Vec::new();
        for result in found.results() {
            let hits = result.rows()?.map(|row| {
                Ok(Hit {
                    position: row.get_i64("position")? as usize,
                    score: row.get_f32(result.get_score_field_name())?,
                })
            });
            let mut hits: Vec<Hit> = hits.collect::<Attempt<_>>()?;
            hits.sort_by(Hit::rank);
            nearest.push(hits);
        }
        // An empty collection answers nothing at all.
        nearest.resize(queries.nrows(), Vec::new());
        Ok(nearest)
    }
}

impl Knowledge for MilvusKnowledge {
    fn encoder(&self) -> &Fingerprint {
        &self.described.encoder
    }

    fn count(&self) -> Result<usize> {
        self.ask("count passages", async || self.counted("").await)
    }

    fn select(&self, filter: &Filter) -> Result<Selection> {
        let doing = "find what a filter means";
        for field in filter.fields() {
            let exists = exists(field);
            let known = self.ask(doing, async || {
                self.query(&exists, &["id"], Some(1), |_| Ok(())).await
            })?;
            if known.is_empty() {
                return Err(Error::UnknownField {
                    field: field.to_owned(),
                    known: self.ask(doing, async || self.fields().await)?,
                });
            }
        }
        let condition = condition(filter);
        Ok(Selection {
            filter: filter.clone(),
            passages: self.ask(doing, async || self.counted(&condition).await)?,
            positions: None,
        })
    }

    fn search(
        &self,
        queries: ArrayView2<f32>,
        k: usize,
        among: Option<&Selection>,
    ) -> Result<Vec<Vec<Hit>>> {
        check_queries(queries, self.described.dimension)?;
        if queries.is_empty() || k == 0 {
            return Ok(vec![Vec::new(); queries.nrows()]);
        }
        let filter = among.map(|among| condition(&among.filter));
        let found = self.ask("search", async || {
            self.nearest(queries, k, filter.as_deref()).await
        })?;
        check_scores(&found)?;
        Ok(found)
    }

    fn passages_at(&self, positions: &[usize]) -> Result<Vec<Passage>> {
        let fields = ["id", "title", "text", "source", "metadata"];
        self.at("read passages", &fields, positions, |row| {
            Ok(Passage {
                id: row.get_str("id")?.to_owned(),
                title: row.get_str("title")?.to_owned(),
                text: row.get_str("text")?.to_owned(),
                source: serde_json::from_value(row.get_json("source")?["at"].clone())?,
                metadata: by_name(row.get_json("metadata")?)?,
            })
        })
    }

    fn vectors_at(&self, positions: &[usize]) -> Result<Array2<f32>> {
        let rows = self.at("read vectors", &["vector"], positions, |row| {
            Ok(row.get_float_vector("vector")?.to_vec())
        })?;
        Ok(matrix(rows, self.described.dimension))
    }
}

impl MilvusKnowledge {
    /// Names of what is known of some passages.
    async fn fields(&self) -> Attempt<Vec<String>> {
        let rows = self.query("position >= 0", &["metadata"], Some(ASKED), |row| {
            Ok(by_name(row.get_json("metadata")?)?
                .into_keys()
                .collect::<Vec<_>>())
        });
        let names: BTreeSet<String> = rows.await?.into_iter().flatten().collect();
        Ok(names.into_iter().collect())
    }
}

impl Table for MilvusKnowledge {
    fn encoder(&self) -> &Fingerprint {
        &self.described.encoder
    }

    fn dimension(&self) -> usize {
        self.described.dimension
    }

    fn storage(&self) -> Storage {
        Storage::F32
    }

    fn positions_of(&self, ids: &[&str]) -> Result<HashMap<String, usize>> {
        let keys: Vec<String> = ids.iter().map(|id| key(id)).collect();
        let condition = format!("key in {}", json!(keys));
        let found = self.ask("look for passages", async || {
            let row = |row: &ResultRow<'_>| {
                let position = row.get_i64("position")? as usize;
                Ok((row.get_str("id")?.to_owned(), position))
            };
            self.query(&condition, &["id", "position"], None, row).await
        })?;
        Ok(found.into_iter().collect())
    }

    fn write(&self, passages: &[(usize, Passage)], vectors: &Array2<f32>) -> Result<()> {
        for (_, passage) in passages {
            check_lengths(passage)?;
        }
        let rows: Vec<usize> = (0..passages.len()).collect();
        let doing = "write passages";
        self.halving(doing, &rows, &mut |rows| {
            let columns = columns(passages, vectors, rows);
            self.run(async || {
                let rows = InsertRequest::builder().collection_name(&self.collection);
                let rows = rows.columns(columns.clone()).build()?;
                let upsert = UpsertRequest::builder().insert(rows);
                self.client.upsert(upsert.build()?).await?;
                Ok(())
            })
        })
    }
}

/// Some rows of passages and their vectors, field by field.
fn columns(passages: &[(usize, Passage)], vectors: &Array2<f32>, rows: &[usize]) -> Vec<FieldData> {
    let some = || rows.iter().map(|&row| &passages[row].1);
    let texts =
        |text: fn(&Passage) -> &String| some().map(|passage| text(passage).clone()).collect();
    let positions = rows.iter().map(|&row| passages[row].0 as i64);
    let vectors = rows.iter().map(|&row| vectors.row(row).to_vec());
    vec![
        FieldData::varchar("key", some().map(|passage| key(&passage.id)).collect()),
        FieldData::varchar("id", texts(|passage| &passage.id)),
        FieldData::int64("position", positions.collect()),
        FieldData::varchar("title", texts(|passage| &passage.title)),
        FieldData::varchar("text", texts(|passage| &passage.text)),
        FieldData::json("source", some().map(source).collect()),
        FieldData::json(
            "metadata",
            some().map(|passage| by_kind(&passage.metadata)).collect(),
        ),
        FieldData::float_vector("vector", vectors.collect()),
    ]
}

/// An object, since a field is not nothing.
fn source(passage: &Passage) -> serde_json::Value {
    json!({ "at": passage.source })
}

/// An id in letters that every server takes in an expression.
fn key(id: &str) -> String {
    blake3::hash(id.as_bytes()).to_string()
}

impl fmt::Debug for MilvusSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MilvusSettings")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("links", &self.links)
            .field("build_width", &self.build_width)
            .field("width", &self.width)
            .field("patience", &self.patience)
            .field("authorities", &self.authorities)
            .finish()
    }
}

impl fmt::Debug for MilvusKnowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MilvusKnowledge")
            .field("collection", &self.collection)
            .field("described", &self.described)
            .finish_non_exhaustive()
    }
}

/// How long one attempt to connect takes at most.
const CONNECTED: Duration = Duration::from_secs(5);

/// What tries again is [`within`], and not the client.
fn connect(address: &str, settings: &MilvusSettings) -> Result<ClientV2> {
    let mut config = ConnectConfig::new()
        .uri(address)
        .connect_timeout(CONNECTED.min(settings.patience))
        .rpc_timeout(settings.patience)
        .retry(RetryConfig::new().max_attempts(1))
        .telemetry(TelemetryConfig::new().enabled(false));
    if let Some(token) = &settings.token {
        config = config.token(token);
    }
    if let Some(path) = &settings.authorities {
        config = config.ca_certificate(path.to_string_lossy());
    }
    within(settings.patience, async || ClientV2::new(&config).await)
        .map_err(|failure| error("be reached", failure))
}

/// Waits for what `attempt` comes to.
fn within<T: Send, F>(patience: Duration, attempt: impl Fn() -> F + Send + Sync) -> Attempt<T>
where
    F: Future<Output = Attempt<T>> + Send,
{
    let silence = || Failure::Timeout(format!("no answer within {patience:?}"));
    super::within(patience, silence, is_transient, attempt)
}

/// Codes of servers that are overloaded, start anew, or have not loaded all yet.
const PASSING: [i32; 5] = [8, UNLOADED, 102, 103, 106];
const UNLOADED: i32 = 101;

/// The server was not there, went away, or says that it will be better later.
fn is_transient(failure: &Failure) -> bool {
    match failure {
        // Cancelled, unknown, deadline exceeded, aborted, internal, unavailable, of gRPC's codes.
        Failure::Grpc(status) => matches!(status.code() as i32, 1 | 2 | 4 | 10 | 13 | 14),
        Failure::Timeout(_) => true,
        Failure::Server(error) => PASSING.contains(&error.code()),
        Failure::RetryExhausted { source, .. } => {
            matches!(**source, Failure::Server(_)) || is_transient(source)
        }
        _ => false,
    }
}

fn is_unloaded(failure: &Failure) -> bool {
    match failure {
        Failure::Server(error) => error.code() == UNLOADED,
        Failure::RetryExhausted { source, .. } => is_unloaded(source),
        _ => false,
    }
}

fn is_too_large(failure: &Failure) -> bool {
    match failure {
        // Resources exhausted, out of range, of gRPC's codes.
        Failure::Grpc(status) => matches!(status.code() as i32, 8 | 11),
        Failure::RetryExhausted { source, .. } => is_too_large(source),
        _ => false,
    }
}

fn error(doing: &'static str, failure: Failure) -> Error {
    Error::Database {
        engine: "Milvus",
        doing,
        source: Box::new(failure),
    }
}

fn check_lengths(passage: &Passage) -> Result<()> {
    let texts = [&passage.id, &passage.title, &passage.text].map(|text| text.len());
    let json = [source(passage), by_kind(&passage.metadata)].map(|json| json.to_string().len());
    match texts.into_iter().chain(json).all(|bytes| bytes <= LONGEST) {
        true => Ok(()),
        false => Err(Error::Unkept {
            id: passage.id.clone(),
            reason: "Milvus keeps texts, and all that is known of a passage, of 65,535 bytes at most",
        }),
    }
}
