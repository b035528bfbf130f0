//! Passages and vectors into a collection.

use std::collections::HashMap;

use milvus::v2::{
    prelude::{FieldData, InsertRequest},
    request::dml::{DeleteRequest, UpsertRequest},
    types::ResultRow,
};
use ndarray::Array2;
use rag_core::Passage;
use serde_json::json;

use super::{ASKED, MilvusKnowledge, condition::by_kind, make::LONGEST};
use crate::{
    encoder::Embedder,
    error::Result,
    index::Storage,
    knowledge::{Changes, Fingerprint, KnowledgeBase},
    remote::{
        error::RemoteError,
        upsert::{self, Table},
    },
};

impl MilvusKnowledge {
    /// Adds passages, and puts them in the place of those of the same ids. What is there as it is, is not
    /// embedded again: after an interruption the same call goes on where it was. `progress` hears how many
    /// are done. Of two of one id in a thousand this is an error, further apart the later stays.
    ///
    /// Any number of machines may do so at once, each with its [shard](crate::remote::Shard) of a corpus.
    ///
    /// # Errors
    /// [`KnowledgeError::OtherEncoder`] for another encoder than that of the knowledge base, [`DocumentError::DuplicateId`](crate::DocumentError::DuplicateId),
    /// [`KnowledgeError::Metadata`], [`RemoteError::Unkept`], those of the encoder, [`IndexError::Dimension`](crate::IndexError::Dimension),
    /// [`IndexError::NotFinite`](crate::IndexError::NotFinite), [`RemoteError::Database`]; what was written before remains.
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
    /// [`RemoteError::Database`].
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

fn check_lengths(passage: &Passage) -> Result<()> {
    let texts = [&passage.id, &passage.title, &passage.text].map(|text| text.len());
    let json = [source(passage), by_kind(&passage.metadata)].map(|json| json.to_string().len());
    match texts.into_iter().chain(json).all(|bytes| bytes <= LONGEST) {
        true => Ok(()),
        false => Err(RemoteError::Unkept {
            id: passage.id.clone(),
            reason: "Milvus keeps texts, and all that is known of a passage, of 65,535 bytes at most",
        }.into()),
    }
}
