//! Passages and vectors out of a collection.

use std::collections::{BTreeSet, HashMap};

use milvus::v2::{
    prelude::{ConsistencyLevel, QueryRequest, SearchRequest, SearchVectors},
    types::ResultRow,
};
use ndarray::{Array2, ArrayView2};
use rag_core::Passage;

use super::{
    ASKED, MilvusKnowledge,
    condition::{by_name, condition, exists},
    connect::Attempt,
};
use crate::{
    error::Result,
    filter::Filter,
    index::{Hit, check_queries, check_scores},
    knowledge::{Fingerprint, Knowledge, Selection, error::KnowledgeError},
    remote::{in_order, matrix},
};

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
                return Err(KnowledgeError::UnknownField {
                    field: field.to_owned(),
                    known: self.ask(doing, async || self.fields().await)?,
                }
                .into());
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
    /// The rows that a condition finds, each turned into a `T` by `read`.
    pub(super) async fn query<T>(
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

    /// How many passages a condition finds.
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
