use std::{collections::BTreeSet, thread, time::Duration};

use ndarray::{Array2, array};
use rag_core::Passage;
use rag_retrieve::{
    Changes, Embedder, Error, Filter, Fingerprint, Knowledge, KnowledgeBase, KnowledgeError,
    Storage,
    remote::{Hnsw, PostgresKnowledge, PostgresSettings, Shard},
};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    filters, finds_the_same,
    hashes::{DIMENSION, Hashes},
    ids, knowledge, passages, random_vectors,
    servers::postgres::Server,
};

fn create(server: &Server, table: &str, like: &KnowledgeBase) -> PostgresKnowledge {
    let (encoder, storage) = (&like.manifest().encoder, like.manifest().storage);
    let dimension = like.manifest().dimension;
    let settings = PostgresSettings::default();
    PostgresKnowledge::create(
        &server.address(),
        table,
        encoder,
        dimension,
        storage,
        settings,
    )
    .unwrap()
}

fn create_for_hashes(server: &Server, table: &str) -> PostgresKnowledge {
    let encoder = Hashes::default().fingerprint().unwrap();
    let (address, settings) = (server.address(), PostgresSettings::default());
    PostgresKnowledge::create(&address, table, &encoder, DIMENSION, Storage::F16, settings).unwrap()
}

#[test]
fn it_finds_what_a_knowledge_base_of_this_process_finds() {
    let Some(server) = Server::shared() else {
        return;
    };
    for (table, storage) in [("same_f32", Storage::F32), ("same_F16", Storage::F16)] {
        let local = knowledge(400, 24, storage);
        let remote = create(server, table, &local);
        let changes = remote.import(&local, |_| {}).unwrap();
        assert_eq!((changes.added, changes.embedded), (400, 0));
        assert_eq!(remote.count().unwrap(), 400);
        for k in [1, 10, 400, 1000] {
            finds_the_same(&local, &remote, k, None);
        }
        remote.build_index(Hnsw::default(), |_| {}).unwrap();
        let remote =
            PostgresKnowledge::open(&server.address(), table, PostgresSettings::default()).unwrap();
        for k in [1, 10] {
            finds_the_same(&local, &remote, k, None);
        }
        let positions: Vec<usize> = (remote.search(random_vectors(1, 24, 8).view(), 5, None))
            .unwrap()[0]
            .iter()
            .map(|hit| hit.position)
            .collect();
        // Batches of questions ask for passages that they share.
        let often = [&positions[..]; 300].concat();
        assert_eq!(remote.vectors_at(&often).unwrap().nrows(), 1500);
        let vectors = remote.vectors_at(&positions).unwrap();
        let found = remote.passages_at(&positions).unwrap();
        for (vector, passage) in vectors.rows().into_iter().zip(found) {
            let at = local
                .passages()
                .position(|local| local.unwrap() == passage)
                .unwrap();
            assert_eq!(vector, local.index().gather(&[at]).row(0));
        }
    }
}

/// pgvector's index alone gives fewer rows than are asked for, where they are more than `ef_search`
/// or a filter leaves few.
#[test]
fn no_passage_is_lost_to_the_index() {
    let Some(server) = Server::shared() else {
        return;
    };
    let local = knowledge(5000, 16, Storage::F16);
    let remote = create(server, "fewer", &local);
    remote.import(&local, |_| {}).unwrap();
    remote.build_index(Hnsw::default(), |_| {}).unwrap();
    let queries = random_vectors(3, 16, 4);
    for k in [40, 300, 1500, 4999] {
        let found = remote.search(queries.view(), k, None).unwrap();
        assert!(found.iter().all(|hits| hits.len() == k), "{k}");
    }
    let rare = Filter::within("it's", 100..=130);
    let among = remote.select(&rare).unwrap();
    assert_eq!(among.passages, 7);
    let found = remote.search(queries.view(), 7, Some(&among)).unwrap();
    assert!(found.iter().all(|hits| hits.len() == 7));
    finds_the_same(&local, &remote, 20, Some(&rare));
}

#[test]
fn the_index_is_used_and_finds_nearly_all() {
    let Some(server) = Server::shared() else {
        return;
    };
    let local = knowledge(5000, 16, Storage::F32);
    let remote = create(server, "indexed", &local);
    remote.import(&local, |_| {}).unwrap();
    remote.build_index(Hnsw::default(), |_| {}).unwrap();
    let queries = random_vectors(50, 16, 6);
    let found = remote.search(queries.view(), 10, None).unwrap();
    let expected = Knowledge::search(&local, queries.view(), 10, None).unwrap();
    let (found, expected) = (ids(&remote, &found), ids(&local, &expected));
    let both = found.iter().zip(&expected).flat_map(|(found, expected)| {
        found
            .iter()
            .filter(|(id, _)| expected.iter().any(|(other, _)| other == id))
    });
    let recall = both.count() as f64 / 500.0;
    assert!(recall >= 0.95, "{recall}");
    // Connections tell their statistics once a second, after a query.
    thread::sleep(Duration::from_millis(1100));
    remote.search(queries.view(), 10, None).unwrap();
    let scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'indexed.vector'";
    assert!(server.sql(scans).parse::<u64>().unwrap() >= 50);
}

#[test]
fn filters_mean_what_they_mean_here() {
    let Some(server) = Server::shared() else {
        return;
    };
    let local = knowledge(120, 8, Storage::F32);
    let remote = create(server, "filters", &local);
    remote.import(&local, |_| {}).unwrap();
    for round in 0..2 {
        for filter in filters() {
            finds_the_same(&local, &remote, 120, Some(&filter));
        }
        if round == 0 {
            remote.build_index(Hnsw::default(), |_| {}).unwrap();
        }
    }
    let error = remote
        .select(&Filter::is("langauge", "en"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"langauge\"") && error.contains("language"),
        "{error}"
    );
}

#[test]
fn only_what_is_new_is_embedded() {
    let Some(server) = Server::shared() else {
        return;
    };
    let remote = create_for_hashes(server, "upsert");
    let mut all = passages(3000);
    let failing = Hashes {
        fails_after: Some(1500),
        ..Hashes::default()
    };
    assert!(remote.upsert(all.clone(), &failing, |_| {}).is_err());
    assert_eq!(remote.count().unwrap(), 1024);

    let encoder = Hashes::default();
    let mut heard = Vec::new();
    let changes = remote
        .upsert(all.clone(), &encoder, |done| heard.push(done))
        .unwrap();
    let expected = Changes {
        added: 3000 - 1024,
        unchanged: 1024,
        embedded: 3000 - 1024,
        ..Changes::default()
    };
    assert_eq!((changes, encoder.read()), (expected, 3000 - 1024));
    assert!(
        heard.is_sorted() && heard.last() == Some(&3000),
        "{heard:?}"
    );

    all[7].text = "changed".into();
    all[8] = all[8].clone().with("language", "fr");
    let changes = remote.upsert(all.clone(), &encoder, |_| {}).unwrap();
    let expected = Changes {
        changed: 2,
        unchanged: 2998,
        embedded: 2,
        ..Changes::default()
    };
    assert_eq!(changes, expected);
    assert_eq!(remote.delete(&["标题-9", "标题-10", "nobody"]).unwrap(), 2);
    assert_eq!(remote.delete(&["标题-9"]).unwrap(), 0);
    all.drain(9..11);

    let everything = remote
        .search(Array2::ones((1, DIMENSION)).view(), 5000, None)
        .unwrap();
    let positions: Vec<usize> = everything[0].iter().map(|hit| hit.position).collect();
    let mut found = remote.passages_at(&positions).unwrap();
    let by_id = |passages: &mut Vec<Passage>| passages.sort_by(|a, b| a.id.cmp(&b.id));
    by_id(&mut found);
    by_id(&mut all);
    assert_eq!(found, all);
}

#[test]
fn several_machines_fill_one() {
    let Some(server) = Server::shared() else {
        return;
    };
    let all = passages(2000);
    let embedded: usize = thread::scope(|scope| {
        let machines: Vec<_> = (0..4)
            .map(|index| {
                let all = &all;
                scope.spawn(move || {
                    let remote = create_for_hashes(server, "machines");
                    let shard = Shard::new(index, 4).unwrap();
                    let own = all
                        .iter()
                        .filter(|passage| shard.holds(&passage.id))
                        .cloned();
                    remote
                        .upsert(own, &Hashes::default(), |_| {})
                        .unwrap()
                        .embedded
                })
            })
            .collect();
        machines
            .into_iter()
            .map(|machine| machine.join().unwrap())
            .sum()
    });
    let remote = create_for_hashes(server, "machines");
    assert_eq!((embedded, remote.count().unwrap()), (2000, 2000));
}

/// Writers of the same passages, at once and in any order.
#[test]
fn writers_of_the_same_passages_do_not_block_each_other() {
    let Some(server) = Server::shared() else {
        return;
    };
    let remote = create_for_hashes(server, "writers");
    thread::scope(|scope| {
        for writer in 0..4 {
            let remote = &remote;
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(writer);
                for round in 0..10 {
                    let mut all = passages(300);
                    for passage in &mut all {
                        passage.text = format!("{} of {writer} in {round}", passage.text);
                    }
                    all.shuffle(&mut random);
                    remote.upsert(all, &Hashes::default(), |_| {}).unwrap();
                }
            });
        }
    });
    assert_eq!(remote.count().unwrap(), 300);
}

#[test]
fn a_task_of_another_runtime_may_ask() {
    let Some(server) = Server::shared() else {
        return;
    };
    let remote = create_for_hashes(server, "task");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    assert_eq!(runtime.block_on(async { remote.count() }).unwrap(), 0);
}

#[test]
fn what_cannot_be_is_refused() {
    let Some(server) = Server::shared() else {
        return;
    };
    let address = server.address();
    let encoder = Hashes::default().fingerprint().unwrap();
    let create = |table: &str, encoder: &Fingerprint, dimension, storage| {
        let settings = PostgresSettings::default();
        PostgresKnowledge::create(&address, table, encoder, dimension, storage, settings)
    };
    let remote = create("refused", &encoder, DIMENSION, Storage::F16).unwrap();
    let refused = |error: Error, words: &[&str]| {
        let message = format!("{error:?}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    for name in [
        "",
        "1st",
        "a b",
        "a\"b",
        "x; DROP TABLE refused",
        "表",
        &"x".repeat(41),
    ] {
        refused(
            create(name, &encoder, 8, Storage::F16).unwrap_err(),
            &[&format!("{name:?}"), "expected a letter"],
        );
    }
    refused(
        create("rag_knowledge", &encoder, 8, Storage::F16).unwrap_err(),
        &["rag_knowledge"],
    );
    refused(
        create("long", &encoder, 4096, Storage::F16).unwrap_err(),
        &["4000", "4096"],
    );
    server.sql("CREATE TABLE foreign_one (id text)");
    refused(
        create("foreign_one", &encoder, 8, Storage::F16).unwrap_err(),
        &["foreign_one", "rag_knowledge"],
    );
    let written = create("written", &encoder, 8, Storage::F16).unwrap();
    written
        .upsert(passages(2), &Hashes::default(), |_| {})
        .unwrap();
    let other = Fingerprint::new("ffff", "another");
    refused(
        create("refused", &other, 8, Storage::F16).unwrap_err(),
        &["another", "hashes of texts"],
    );
    refused(
        create("refused", &encoder, 9, Storage::F16).unwrap_err(),
        &["8", "9", "refused"],
    );
    refused(
        create("refused", &encoder, 8, Storage::F32).unwrap_err(),
        &["F16", "F32"],
    );
    let open = |address: &str, table: &str| {
        let patience = Duration::from_millis(300);
        let settings = PostgresSettings {
            patience,
            ..PostgresSettings::default()
        };
        PostgresKnowledge::open(address, table, settings).unwrap_err()
    };
    refused(open(&address, "nothing"), &["nothing", "create"]);
    refused(
        open("mysql://x", "refused"),
        &["postgresql://user@host/database"],
    );
    refused(
        open("postgresql://rag@127.0.0.1:1/postgres", "refused"),
        &["refused"],
    );
    refused(
        open(&address.replace("/postgres", "/nowhere"), "refused"),
        &["nowhere"],
    );

    let nan = array![[f32::NAN, 0., 0., 0., 0., 0., 0., 0.]];
    refused(remote.search(nan.view(), 1, None).unwrap_err(), &["query"]);
    refused(
        remote.search(array![[1.0]].view(), 1, None).unwrap_err(),
        &["8"],
    );
    let empty = remote.search(Array2::ones((2, 8)).view(), 3, None).unwrap();
    assert_eq!(empty, vec![Vec::new(), Vec::new()]);

    let upsert = |passages: Vec<Passage>| remote.upsert(passages, &Hashes::default(), |_| {});
    let twice = vec![Passage::new("a", "", "x"), Passage::new("a", "", "y")];
    refused(upsert(twice).unwrap_err(), &["\"a\""]);
    refused(
        upsert(vec![Passage::new("a", "", "x\0y")]).unwrap_err(),
        &["\"a\"", "character 0"],
    );
    refused(
        upsert(vec![Passage::new("x".repeat(3000), "", "x")]).unwrap_err(),
        &["2,000"],
    );
    let infinite = Passage::new("a", "", "x").with("n", f64::INFINITY);
    assert!(matches!(
        upsert(vec![infinite]),
        Err(Error::Knowledge(KnowledgeError::Metadata { .. }))
    ));
    let error = remote.upsert(
        vec![Passage::new("a", "", "x")],
        &Hashes::version(3),
        |_| {},
    );
    assert!(matches!(
        error,
        Err(Error::Knowledge(KnowledgeError::OtherEncoder { .. }))
    ));
    assert_eq!(remote.count().unwrap(), 0);
    upsert(passages(2)).unwrap();
    let all = remote.search(Array2::ones((1, 8)).view(), 3, None).unwrap();
    assert_eq!(all[0].len(), 2);
    assert!(remote.search(Array2::ones((1, 8)).view(), 0, None).unwrap()[0].is_empty());
    // Numbers beyond half precision in a question change nothing of the order.
    let large = remote
        .search((Array2::ones((1, 8)) * 1e20).view(), 2, None)
        .unwrap();
    let order =
        |hits: &[rag_retrieve::Hit]| hits.iter().map(|hit| hit.position).collect::<Vec<_>>();
    assert_eq!(order(&large[0]), order(&all[0]));
    assert_eq!(order(&all[0]).iter().collect::<BTreeSet<_>>().len(), 2);
}
