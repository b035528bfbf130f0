//! A server that stops and starts, and one that speaks TLS.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ndarray::Array2;
use rag_core::Passage;
use rag_retrieve::{
    Embedder, Error, Knowledge, RemoteError, Storage,
    remote::{PostgresKnowledge, PostgresSettings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, pki_types::PrivateKeyDer},
};

use super::{
    Ending,
    hashes::{DIMENSION, Hashes},
    ids, passages,
    servers::postgres::Server,
    silent,
};

fn create(address: &str, settings: PostgresSettings) -> Result<PostgresKnowledge, Error> {
    let encoder = Hashes::default().fingerprint()?;
    PostgresKnowledge::create(
        address,
        "faults",
        &encoder,
        DIMENSION,
        Storage::F16,
        settings,
    )
}

/// Crashes and starts under readers and a writer: every answer is right, and nothing that was written is
/// lost or half there; then it stays away, and that is an error.
#[test]
fn a_server_that_is_gone_for_a_while() {
    let Some(server) = Server::start() else {
        return;
    };
    let remote = create(&server.address(), PostgresSettings::default()).unwrap();
    let fixed = passages(500);
    remote
        .upsert(fixed.clone(), &Hashes::default(), |_| {})
        .unwrap();
    // The writer's passages score below the fixed ones' best.
    let query = Array2::from_elem((1, DIMENSION), 1.0);
    let best = |remote: &PostgresKnowledge| {
        let found = remote.search(query.view(), 5, None)?;
        Ok::<_, Error>(found)
    };
    let expected = ids(&remote, &best(&remote).unwrap());
    let lowest = expected[0].last().unwrap().1;
    let low = |n: usize| {
        (0..)
            .map(|salt| Passage::new(format!("low-{n}"), "", format!("{n} {salt}")))
            .find(|passage| Hashes::default().vector(passage).sum() < lowest)
            .unwrap()
    };
    let (over, answers, written) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(ids(&remote, &best(&remote).unwrap()), expected);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let first = written.load(Ordering::Relaxed);
                let some: Vec<Passage> = (first..first + 20).map(low).collect();
                remote.upsert(some, &Hashes::default(), |_| {}).unwrap();
                written.store(first + 20, Ordering::Relaxed);
            }
        });
        let _ending = Ending(&over);
        for round in 0..6 {
            thread::sleep(Duration::from_millis(300 + 130 * round));
            server.down();
            thread::sleep(Duration::from_millis(200 * round));
            server.up();
        }
        let (answered, begun) = (answers.load(Ordering::Relaxed), Instant::now());
        while answers.load(Ordering::Relaxed) < answered + 10 {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "it does not answer again"
            );
            thread::sleep(Duration::from_millis(10));
        }
    });
    let written = written.into_inner();
    assert!(written > 0);
    assert_eq!(remote.count().unwrap(), 500 + written);

    let patience = Duration::from_secs(2);
    let settings = PostgresSettings {
        patience,
        ..PostgresSettings::default()
    };
    let impatient = create(&server.address(), settings).unwrap();
    server.down();
    let begun = Instant::now();
    let error = best(&impatient).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Remote(RemoteError::Database {
                engine: "PostgreSQL",
                ..
            })
        ),
        "{error}"
    );
    assert!(error.to_string().contains("search"), "{error}");
    assert!(
        begun.elapsed() > Duration::from_millis(500),
        "it was not tried again"
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    server.up();
    assert_eq!(ids(&impatient, &best(&impatient).unwrap()), expected);
}

#[test]
fn a_server_that_says_nothing() {
    let (_listener, port) = silent();
    let settings = PostgresSettings {
        patience: Duration::from_secs(1),
        ..PostgresSettings::default()
    };
    let begun = Instant::now();
    let address = format!("postgresql://rag@127.0.0.1:{port}/postgres");
    let error = create(&address, settings).unwrap_err();
    assert!(
        matches!(error, Error::Remote(RemoteError::Database { .. })),
        "{error}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

/// A statement that takes longer than anyone waits for ends, and leaves no connection behind it at work.
#[test]
fn a_table_that_is_locked() {
    let Some(server) = Server::start() else {
        return;
    };
    let settings = PostgresSettings {
        patience: Duration::from_secs(2),
        connections: 2,
        ..PostgresSettings::default()
    };
    let remote = create(&server.address(), settings).unwrap();
    remote
        .upsert(passages(3), &Hashes::default(), |_| {})
        .unwrap();
    thread::scope(|scope| {
        let locked =
            scope.spawn(|| server.sql("BEGIN; LOCK TABLE faults; SELECT pg_sleep(12); COMMIT"));
        thread::sleep(Duration::from_millis(500));
        for _ in 0..3 {
            let begun = Instant::now();
            let error = remote.count().unwrap_err();
            assert!(
                matches!(error, Error::Remote(RemoteError::Database { .. })),
                "{error}"
            );
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "{:?}",
                begun.elapsed()
            );
        }
        locked.join().unwrap();
    });
    assert_eq!(remote.count().unwrap(), 3);
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    assert_eq!(server.sql(at_work), "0");
}

/// A server with TLS in front of one without: it answers PostgreSQL's request for it, and passes on what
/// is said.
#[test]
fn it_is_spoken_to_by_tls() {
    let Some(server) = Server::shared() else {
        return;
    };
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = Runtime::new().unwrap();
    let listener = runtime
        .block_on(TcpListener::bind(("127.0.0.1", 0)))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let sessions = Arc::new(AtomicUsize::new(0));
    let (counted, behind) = (sessions.clone(), server.port);
    runtime.spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (acceptor, counted) = (acceptor.clone(), counted.clone());
            tokio::spawn(async move {
                let mut request = [0; 8];
                client.read_exact(&mut request).await.unwrap();
                // SSLRequest of the protocol: its length, and a code.
                assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
                client.write_all(b"S").await.unwrap();
                let Ok(mut client) = acceptor.accept(client).await else {
                    return;
                };
                counted.fetch_add(1, Ordering::Relaxed);
                let mut server = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });

    let address = format!("postgresql://rag@127.0.0.1:{port}/postgres?sslmode=require");
    let begun = Instant::now();
    let error = create(&address, PostgresSettings::default()).unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("certificate"), "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "a bad certificate does not get better"
    );
    assert_eq!(sessions.load(Ordering::Relaxed), 0);

    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("ca.pem");
    fs::write(&authorities, key.cert.pem()).unwrap();
    let settings = PostgresSettings {
        authorities: Some(authorities.clone()),
        ..PostgresSettings::default()
    };
    let remote = create(&address, settings.clone()).unwrap();
    remote
        .upsert(passages(3), &Hashes::default(), |_| {})
        .unwrap();
    assert!(sessions.load(Ordering::Relaxed) > 0);

    let plain = server.address() + "?sslmode=require";
    let error = create(&plain, PostgresSettings::default()).unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("TLS"), "{error}");
    fs::write(
        &authorities,
        "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let error = format!("{:?}", create(&address, settings).unwrap_err());
    assert!(error.contains("ca.pem"), "{error}");
}
