use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use ndarray::{Array2, array};
use rag_core::Passage;
use rag_retrieve::{
    Changes, Embedder, Error, Filter, Fingerprint, Knowledge, KnowledgeBase, KnowledgeError,
    RemoteError, Storage,
    remote::{MilvusKnowledge, MilvusSettings, Shard},
};

use super::{
    Ending, filters, finds_the_same,
    hashes::{DIMENSION, Hashes},
    ids, knowledge, passages,
    servers::milvus::Server,
    silent,
};

fn create(server: &Server, collection: &str, like: &KnowledgeBase) -> MilvusKnowledge {
    let manifest = like.manifest();
    let (dimension, settings) = (manifest.dimension, MilvusSettings::default());
    let (address, encoder) = (server.address(), &manifest.encoder);
    MilvusKnowledge::create(&address, collection, encoder, dimension, settings).unwrap()
}

fn create_for_hashes(
    address: &str,
    collection: &str,
    settings: MilvusSettings,
) -> Result<MilvusKnowledge, Error> {
    let encoder = Hashes::default().fingerprint()?;
    MilvusKnowledge::create(address, collection, &encoder, DIMENSION, settings)
}

#[test]
fn it_finds_what_a_knowledge_base_of_this_process_finds() {
    let Some(server) = Server::shared() else {
        return;
    };
    let local = knowledge(400, 24, Storage::F32);
    let remote = create(server, "same", &local);
    let changes = remote.import(&local, |_| {}).unwrap();
    assert_eq!((changes.added, changes.embedded), (400, 0));
    assert_eq!(remote.count().unwrap(), 400);
    let remote =
        MilvusKnowledge::open(&server.address(), "same", MilvusSettings::default()).unwrap();
    for k in [1, 10, 400, 1000] {
        finds_the_same(&local, &remote, k, None);
    }
    let query = Array2::ones((1, 24));
    let found = remote.search(query.view(), 5, None).unwrap();
    let positions: Vec<usize> = found[0].iter().map(|hit| hit.position).collect();
    // Batches of questions ask for passages that they share.
    let often = [&positions[..]; 300].concat();
    assert_eq!(remote.vectors_at(&often).unwrap().nrows(), 1500);
    let vectors = remote.vectors_at(&positions).unwrap();
    let found = remote.passages_at(&positions).unwrap();
    for (vector, passage) in vectors.rows().into_iter().zip(found) {
        let same = |local: Result<Passage, Error>| local.unwrap() == passage;
        let at = local.passages().position(same).unwrap();
        assert_eq!(vector, local.index().gather(&[at]).row(0));
    }
}

#[test]
fn filters_mean_what_they_mean_here() {
    let Some(server) = Server::shared() else {
        return;
    };
    let local = knowledge(120, 8, Storage::F32);
    let remote = create(server, "filters", &local);
    remote.import(&local, |_| {}).unwrap();
    for filter in filters() {
        finds_the_same(&local, &remote, 120, Some(&filter));
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
    let open =
        || create_for_hashes(&server.address(), "upsert", MilvusSettings::default()).unwrap();
    let remote = open();
    let mut all = passages(2500);
    let failing = Hashes {
        fails_after: Some(1500),
        ..Hashes::default()
    };
    assert!(remote.upsert(all.clone(), &failing, |_| {}).is_err());
    assert_eq!(remote.count().unwrap(), 1024);
    thread::scope(|scope| {
        for index in 0..2 {
            let (all, open) = (&all, &open);
            scope.spawn(move || {
                let shard = Shard::new(index, 2).unwrap();
                let own = all
                    .iter()
                    .filter(|passage| shard.holds(&passage.id))
                    .cloned();
                open().upsert(own, &Hashes::default(), |_| {}).unwrap();
            });
        }
    });
    assert_eq!(remote.count().unwrap(), 2500);
    all[7].text = "changed".into();
    all[8] = all[8].clone().with("language", "fr");
    let changes = remote
        .upsert(all.clone(), &Hashes::default(), |_| {})
        .unwrap();
    let expected = Changes {
        changed: 2,
        unchanged: 2498,
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
    found.sort_by(|a, b| a.id.cmp(&b.id));
    all.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(found, all);
}

/// Killed and started under readers: every answer is right; then it stays away, and that is an error.
#[test]
fn a_server_that_is_gone_for_a_while() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let address = server.address();
    let remote = create_for_hashes(&address, "faults", MilvusSettings::default()).unwrap();
    remote
        .upsert(passages(300), &Hashes::default(), |_| {})
        .unwrap();
    let query = Array2::from_elem((1, DIMENSION), 1.0);
    let best = |remote: &MilvusKnowledge| {
        let found = remote.search(query.view(), 5, None).unwrap();
        ids(remote, &found)
    };
    let expected = best(&remote);
    let (over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(best(&remote), expected);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _ending = Ending(&over);
        for round in 0..2 {
            thread::sleep(Duration::from_millis(300));
            server.down();
            thread::sleep(Duration::from_millis(500 * round));
            server.up();
            let (answered, begun) = (answers.load(Ordering::Relaxed), Instant::now());
            while answers.load(Ordering::Relaxed) < answered + 5 {
                assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "it does not answer again"
                );
                thread::sleep(Duration::from_millis(10));
            }
        }
    });
    let patience = Duration::from_secs(2);
    let settings = MilvusSettings {
        patience,
        ..MilvusSettings::default()
    };
    let impatient = create_for_hashes(&address, "faults", settings.clone()).unwrap();
    server.down();
    let begun = Instant::now();
    let error = impatient.search(query.view(), 5, None).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Remote(RemoteError::Database {
                engine: "Milvus",
                ..
            })
        ),
        "{error}"
    );
    assert!(
        begun.elapsed() > Duration::from_millis(500),
        "it was not tried again"
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    let (_listener, silent) = silent();
    for address in [address, format!("http://127.0.0.1:{silent}")] {
        let begun = Instant::now();
        let error = create_for_hashes(&address, "faults", settings.clone()).unwrap_err();
        assert!(
            matches!(error, Error::Remote(RemoteError::Database { .. })),
            "{error}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let Some(server) = Server::shared() else {
        return;
    };
    let encoder = Hashes::default().fingerprint().unwrap();
    let create = |collection: &str, encoder: &Fingerprint, dimension| {
        let (address, settings) = (server.address(), MilvusSettings::default());
        MilvusKnowledge::create(&address, collection, encoder, dimension, settings)
    };
    let remote = create("refused", &encoder, DIMENSION).unwrap();
    let refused = |error: Error, words: &[&str]| {
        let message = format!("{error:?}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    refused(
        create("a-b", &encoder, 8).unwrap_err(),
        &["a-b", "expected a letter"],
    );
    let other = Fingerprint::new("ffff", "another");
    refused(
        create("refused", &other, 8).unwrap_err(),
        &["another", "hashes of texts"],
    );
    refused(
        create("refused", &encoder, 9).unwrap_err(),
        &["8", "9", "refused"],
    );
    let nothing = MilvusKnowledge::open(&server.address(), "nothing", MilvusSettings::default());
    refused(nothing.unwrap_err(), &["nothing", "create"]);

    let nan = array![[f32::NAN, 0., 0., 0., 0., 0., 0., 0.]];
    refused(remote.search(nan.view(), 1, None).unwrap_err(), &["query"]);
    refused(
        remote.search(array![[1.0]].view(), 1, None).unwrap_err(),
        &["8"],
    );
    let empty = remote.search(Array2::ones((2, 8)).view(), 3, None).unwrap();
    assert_eq!(empty, vec![Vec::new(), Vec::new()]);
    let upsert = |passages: Vec<Passage>| remote.upsert(passages, &Hashes::default(), |_| {});
    // More than one message holds, and a name beyond the basic plane.
    let long = |n| Passage::new(format!("𠮷{n}"), "", format!("{n}").repeat(20_000));
    assert_eq!(upsert((100..300).map(long).collect()).unwrap().added, 200);
    assert_eq!(
        upsert((100..300).map(long).collect()).unwrap().unchanged,
        200
    );
    let all = remote
        .search(Array2::ones((1, 8)).view(), 300, None)
        .unwrap();
    let positions: Vec<usize> = all[0].iter().map(|hit| hit.position).collect();
    assert_eq!(remote.passages_at(&positions).unwrap().len(), 200);
    let ids: Vec<String> = (100..300).map(|n| format!("𠮷{n}")).collect();
    assert_eq!(remote.delete(&ids).unwrap(), 200);
    let long = Passage::new("a", "", "长".repeat(30_000));
    refused(upsert(vec![long]).unwrap_err(), &["\"a\"", "65,535"]);
    let twice = vec![Passage::new("a", "", "x"), Passage::new("a", "", "y")];
    refused(upsert(twice).unwrap_err(), &["\"a\""]);
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
    let gone = all[0][0].position;
    let passage = remote.passages_at(&[gone]).unwrap().remove(0);
    remote.delete(&[&passage.id]).unwrap();
    let error = remote.passages_at(&[gone]).unwrap_err();
    assert!(
        matches!(error, Error::Knowledge(KnowledgeError::Gone { .. })),
        "{error}"
    );
}
