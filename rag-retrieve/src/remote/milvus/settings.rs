use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::knowledge::Fingerprint;

/// Connection to a server, and the parameters of its index.
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

/// The description that is kept with the collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) format_version: u32,
    pub(super) encoder: Fingerprint,
    pub(super) dimension: usize,
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
