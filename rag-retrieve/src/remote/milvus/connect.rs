//! The connection to a server, and which of its failures pass.

use std::{future::Future, time::Duration};

use milvus::v2::{
    error::Error as Failure,
    prelude::{ClientV2, ConnectConfig},
    types::{RetryConfig, TelemetryConfig},
};

use super::settings::MilvusSettings;
use crate::{
    error::{Error, Result},
    remote::{self, error::RemoteError},
};

pub(super) type Attempt<T> = std::result::Result<T, Failure>;

/// How long one attempt to connect takes at most.
const CONNECTED: Duration = Duration::from_secs(5);

/// Connects without retries of the client: [`within`] tries again.
pub(super) fn connect(address: &str, settings: &MilvusSettings) -> Result<ClientV2> {
    let mut config = ConnectConfig::new()
        .uri(address)
        .connect_timeout(CONNECTED.min(settings.patience))
        .rpc_timeout(settings.patience)
        .retry(RetryConfig::new().max_attempts(1))
        .telemetry(TelemetryConfig::new().enabled(false));
    if let Some(token) = &settings.token {
        config = config.token(token);
    }
    if let Some(path) = &settings.authorities {
        config = config.ca_certificate(path.to_string_lossy());
    }
    within(settings.patience, async || ClientV2::new(&config).await)
        .map_err(|failure| error("be reached", failure))
}

/// Waits for what `attempt` comes to.
pub(super) fn within<T: Send, F>(
    patience: Duration,
    attempt: impl Fn() -> F + Send + Sync,
) -> Attempt<T>
where
    F: Future<Output = Attempt<T>> + Send,
{
    let silence = || Failure::Timeout(format!("no answer within {patience:?}"));
    remote::within(patience, silence, is_transient, attempt)
}

/// Codes of servers that are overloaded, start anew, or have not loaded all yet.
const PASSING: [i32; 5] = [8, UNLOADED, 102, 103, 106];
const UNLOADED: i32 = 101;

/// The server was not there, went away, or says that it will be better later.
fn is_transient(failure: &Failure) -> bool {
    match failure {
        // Cancelled, unknown, deadline exceeded, aborted, internal, unavailable, of gRPC's codes.
        Failure::Grpc(status) => matches!(status.code() as i32, 1 | 2 | 4 | 10 | 13 | 14),
        Failure::Timeout(_) => true,
        Failure::Server(error) => PASSING.contains(&error.code()),
        Failure::RetryExhausted { source, .. } => {
            matches!(**source, Failure::Server(_)) || is_transient(source)
        }
        _ => false,
    }
}

pub(super) fn is_unloaded(failure: &Failure) -> bool {
    match failure {
        Failure::Server(error) => error.code() == UNLOADED,
        Failure::RetryExhausted { source, .. } => is_unloaded(source),
        _ => false,
    }
}

pub(super) fn is_too_large(failure: &Failure) -> bool {
    match failure {
        // Resources exhausted, out of range, of gRPC's codes.
        Failure::Grpc(status) => matches!(status.code() as i32, 8 | 11),
        Failure::RetryExhausted { source, .. } => is_too_large(source),
        _ => false,
    }
}

pub(super) fn error(doing: &'static str, failure: Failure) -> Error {
    Error::Remote(RemoteError::Database {
        engine: "Milvus",
        doing,
        source: Box::new(failure),
    })
}
