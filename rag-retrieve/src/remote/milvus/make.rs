//! The collection of a knowledge base: how it is made, described and loaded.

use std::{collections::HashMap, time::Duration};

use milvus::v2::{
    error::Error as Failure,
    prelude::{
        ClientV2, CollectionSchema, DataType, FieldSchema, IndexParam, IndexType, MetricType,
    },
    request::{
        collection::{
            CreateCollectionRequest, DescribeCollectionRequest, GetLoadStateRequest,
            HasCollectionRequest, LoadCollectionRequest,
        },
        index::{CreateIndexRequest, DescribeIndexRequest},
    },
    types::LoadState,
};
use serde_json::json;
use tokio::time::sleep;

use super::{
    MilvusKnowledge,
    connect::{Attempt, error, within},
    settings::{Described, MilvusSettings},
};
use crate::{
    error::Result,
    remote::{FORMAT_VERSION, error::RemoteError},
};

/// Where it is kept beside the description, which milvus-lite forgets.
const PROPERTY: &str = "rag.knowledge";

/// Bytes at most of a text, and of JSON.
pub(super) const LONGEST: usize = 65_535;

/// Letters of a [`key`].
const KEY: usize = 64;

impl MilvusKnowledge {
    /// As the collection describes itself; ready to be searched.
    pub(super) fn described(
        client: ClientV2,
        collection: &str,
        settings: MilvusSettings,
    ) -> Result<Self> {
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
            .ok_or_else(|| RemoteError::NoTable {
                table: collection.to_owned(),
            })?;
        let described = match serde_json::from_str::<Described>(&text) {
            Ok(described) if described.format_version == FORMAT_VERSION => described,
            _ => {
                return Err(RemoteError::OtherTable {
                    table: collection.to_owned(),
                    what: "the description",
                    found: text,
                    expected: format!("layout {FORMAT_VERSION} of a knowledge base"),
                }
                .into());
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

    /// Makes the collection and its index, unless they are there.
    pub(super) async fn make(&self) -> Attempt<()> {
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

    /// Has the server hold it in memory, where an operator has not done so, with as many replicas as are wanted.
    pub(super) async fn load(&self) -> Attempt<()> {
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
}
