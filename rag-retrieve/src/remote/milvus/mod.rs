#![expect(
    clippy::result_large_err,
    reason = "it is the error of Milvus's client"
)]

mod condition;
mod connect;
mod make;
mod read;
mod settings;
mod write;

use std::{fmt, future::Future};

use milvus::v2::prelude::ClientV2;

pub use self::settings::MilvusSettings;
use self::{
    connect::{Attempt, connect, error, is_too_large, is_unloaded, within},
    settings::Described,
};
use super::{FORMAT_VERSION, check_name, error::RemoteError};
use crate::{error::Result, knowledge::Fingerprint};

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

/// Rows that are asked for at a time.
const ASKED: usize = 1024;

impl MilvusKnowledge {
    /// Makes an empty knowledge base for vectors of this encoder, or opens it where it is there already.
    /// `address` is a URL, `http://host:19530`, or with `https` for TLS.
    ///
    /// # Errors
    /// [`RemoteError::TableName`]; [`RemoteError::OtherTable`] and [`KnowledgeError::OtherEncoder`](crate::KnowledgeError::OtherEncoder) where there is another one of the
    /// name; [`RemoteError::Database`].
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
            false => Err(RemoteError::OtherTable {
                table: collection.to_owned(),
                what: "vectors of dimension",
                found: there.described.dimension.to_string(),
                expected: dimension.to_string(),
            }
            .into()),
        }
    }

    /// Opens a knowledge base that was [made](Self::create).
    ///
    /// # Errors
    /// [`RemoteError::NoTable`]; those of [`MilvusKnowledge::create`].
    pub fn open(address: &str, collection: &str, settings: MilvusSettings) -> Result<Self> {
        check_name(collection)?;
        Self::described(connect(address, &settings)?, collection, settings)
    }

    /// Runs `work`, and again after failures that pass.
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
}

impl fmt::Debug for MilvusKnowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MilvusKnowledge")
            .field("collection", &self.collection)
            .field("described", &self.described)
            .finish_non_exhaustive()
    }
}
