//! A RAG over a knowledge base in a database answers as it does over one of this process.
//!
//! The databases alone are tested in `rag-retrieve/tests/remote`, which says what `RAG_POSTGRES_BIN` and
//! `RAG_MILVUS_LITE` name; without them the tests say that they are skipped.

#![cfg(any(feature = "postgres", feature = "milvus"))]
#![allow(clippy::unwrap_used)]

mod common;
#[allow(dead_code)]
#[path = "../rag-retrieve/tests/remote/servers/mod.rs"]
mod servers;

use burn_rag::{
    generate::Rag,
    retrieve::{Error, Knowledge, KnowledgeBase, KnowledgeError},
};
use common::{Kind, QUESTIONS};

/// Saves `rag`, loads it over `remote` and compares the answers; returns what was loaded.
fn answers_the_same(rag: &Rag, remote: impl Knowledge + 'static) -> Rag {
    let folder = tempfile::tempdir().unwrap();
    rag.save(&folder).unwrap();
    let other = Rag::load(&folder, remote, &common::cpu()).unwrap();
    for question in QUESTIONS {
        let (expected, found) = (rag.ask(question).unwrap(), other.ask(question).unwrap());
        assert_eq!(expected.text, found.text);
        assert!((expected.log_likelihood - found.log_likelihood).abs() < 1e-4);
    }
    other
}

#[cfg(feature = "milvus")]
mod milvus {
    use burn_rag::retrieve::remote::{MilvusKnowledge, MilvusSettings};

    use super::*;

    #[test]
    fn a_rag_answers_from_it() {
        let Some(server) = servers::milvus::Server::shared() else {
            return;
        };
        let rag = common::rag(Kind::Bart);
        let local = rag.retriever.local().unwrap();
        let manifest = local.manifest();
        let remote = MilvusKnowledge::create(
            &server.address(),
            "answers",
            &manifest.encoder,
            manifest.dimension,
            MilvusSettings::default(),
        )
        .unwrap();
        remote.import(local, |_| {}).unwrap();
        answers_the_same(&rag, remote);
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::{thread, time::Duration};

    use burn_rag::retrieve::remote::{PostgresKnowledge, PostgresSettings};
    use ndarray::array;

    use super::*;

    fn create(
        server: &servers::postgres::Server,
        table: &str,
        like: &KnowledgeBase,
    ) -> PostgresKnowledge {
        let manifest = like.manifest();
        PostgresKnowledge::create(
            &server.address(),
            table,
            &manifest.encoder,
            manifest.dimension,
            manifest.storage,
            PostgresSettings::default(),
        )
        .unwrap()
    }

    /// A passage that was found may be gone before it is read: then the search is repeated.
    #[test]
    fn answers_come_while_passages_change() {
        let Some(server) = servers::postgres::Server::shared() else {
            return;
        };
        let rag = common::rag(Kind::Bart);
        let local = rag.retriever.local().unwrap();
        let remote = create(server, "change", local);
        remote.import(local, |_| {}).unwrap();
        let gone = remote
            .search(array![[1.0, 0.0, 0.0, 0.0]].view(), 1, None)
            .unwrap()[0][0];
        let passage = remote.passages_at(&[gone.position]).unwrap().remove(0);
        remote.delete(&[&passage.id]).unwrap();
        let error = remote.passages_at(&[gone.position]).unwrap_err();
        assert!(
            matches!(error, Error::Knowledge(KnowledgeError::Gone { .. })),
            "{error}"
        );
        remote.import(local, |_| {}).unwrap();

        let over = |knowledge: PostgresKnowledge| {
            let mut changing = rag.clone();
            let encoder = changing.retriever.context_encoder().clone();
            changing.retriever = changing
                .retriever
                .with_knowledge(encoder, knowledge)
                .unwrap();
            changing
        };
        let changing = over(remote.clone());
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut all = common::passages();
                for round in 0..20 {
                    for passage in &mut all {
                        *passage = passage.clone().with("round", round);
                    }
                    let encoder = changing.retriever.context_encoder();
                    remote.upsert(all.clone(), encoder, |_| {}).unwrap();
                    // Who writes all passages all the time leaves nobody the time to read them.
                    thread::sleep(Duration::from_millis(100));
                }
            });
            let expected = rag.retriever.retrieve(&QUESTIONS).unwrap();
            while !writer.is_finished() {
                let found = changing.retriever.retrieve(&QUESTIONS).unwrap();
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    assert_eq!(found.passage.id, expected.passage.id);
                }
            }
        });
    }

    #[test]
    fn a_rag_answers_from_it() {
        let Some(server) = servers::postgres::Server::shared() else {
            return;
        };
        let rag = common::rag(Kind::Bart);
        let local = rag.retriever.local().unwrap();
        let remote = create(server, "answers", local);
        remote.import(local, |_| {}).unwrap();
        let error = answers_the_same(&rag, remote)
            .retriever
            .local()
            .unwrap_err();
        assert!(
            matches!(error, Error::Knowledge(KnowledgeError::NotLocal)),
            "{error}"
        );
    }
}
