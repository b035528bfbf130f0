use std::{error::Error as _, io, path::Path, sync::Arc, time::Duration};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::{Config, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    error::{Error, Result},
    remote::error::RemoteError,
};

/// How long a connection may take to say that it is free.
const RECYCLED: Duration = Duration::from_secs(2);

/// Connections that are made when they are needed, with TLS where the server has it or the address
/// asks for it.
pub(super) fn pool(
    address: &str,
    connections: usize,
    patience: Duration,
    authorities: Option<&Path>,
) -> Result<Pool> {
    let mut config: Config = address.parse().map_err(|error: tokio_postgres::Error| {
        let expected = "postgresql://user@host/database, or host=… user=… dbname=…";
        Error::Remote(RemoteError::Address {
            expected,
            found: with_source(&error),
        })
    })?;
    config.keepalives_idle(Duration::from_secs(30));
    let tls = MakeRustlsConnect::new(tls(authorities)?);
    // A connection whose query was cut off may still be at work, or its server gone: it is given up.
    let recycling_method = RecyclingMethod::Verified;
    let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method });
    let pool = Pool::builder(manager)
        .max_size(connections.max(1))
        .runtime(Runtime::Tokio1)
        .timeouts(deadpool_postgres::Timeouts {
            wait: Some(patience),
            create: Some(patience),
            recycle: Some(RECYCLED),
        })
        // A query that nobody waits for any more ends by itself.
        .post_create(Hook::async_fn(move |client, _| {
            let limit = format!("SET statement_timeout = {}", patience.as_millis().max(1));
            Box::pin(async move {
                client
                    .batch_execute(&limit)
                    .await
                    .map_err(HookError::Backend)
            })
        }));
    Ok(pool.build().expect("a runtime is given"))
}

/// The system's certificate authorities, and those of a PEM file.
fn tls(authorities: Option<&Path>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = authorities {
        let unreadable = |error: &dyn std::fmt::Display| {
            let error = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
            Error::Core(rag_core::Error::io(path)(error))
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| unreadable(&e))?;
            roots.add(certificate).map_err(|e| unreadable(&e))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions of TLS");
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The reason why an attempt stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}", with_source(.0))]
    Server(#[from] tokio_postgres::Error),
    #[error("{}", pool_message(.0))]
    Pool(#[from] PoolError),
    #[error("no answer within {0:?}")]
    Silence(Duration),
    /// Not the server's doing.
    #[error("{0}")]
    Own(Box<Error>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Own(Box::new(error))
    }
}

impl Failure {
    /// Whether the same may succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Server(error) | Self::Pool(PoolError::Backend(error)) => is_transient(error),
            Self::Pool(PoolError::PostCreateHook(HookError::Backend(error))) => is_transient(error),
            Self::Pool(error) => matches!(error, PoolError::Timeout(_)),
            Self::Silence(_) => true,
            Self::Own(_) => false,
        }
    }

    pub(super) fn into_error(self, doing: &'static str) -> Error {
        match self {
            Self::Own(error) => *error,
            failure => Error::Remote(RemoteError::Database {
                engine: "PostgreSQL",
                doing,
                source: Box::new(failure),
            }),
        }
    }
}

/// The connection was lost, or the server was about to stop or to start, or writers met.
fn is_transient(error: &tokio_postgres::Error) -> bool {
    if let Some(code) = error.code() {
        // Class 08 is lost connections, 57P the server's stops, 53 its want of room.
        return code.code().starts_with("08")
            || code.code().starts_with("57P")
            || *code == SqlState::TOO_MANY_CONNECTIONS
            || *code == SqlState::T_R_SERIALIZATION_FAILURE
            || *code == SqlState::T_R_DEADLOCK_DETECTED;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            // A certificate that is refused comes as invalid data or input.
            use io::ErrorKind::{InvalidData, InvalidInput};
            return !matches!(error.kind(), InvalidData | InvalidInput);
        }
        source = cause.source();
    }
    error.is_closed()
}

/// The driver's errors say what failed, and only their sources say why.
fn with_source(error: &tokio_postgres::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn pool_message(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => with_source(error),
        error => error.to_string(),
    }
}
