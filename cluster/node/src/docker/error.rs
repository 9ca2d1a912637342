//! Docker's errors in the words of the kubelet.

use bollard::errors::Error;
use kubelet::{RuntimeError, RuntimeErrorKind};

/// The status code of a refusal.
pub(crate) fn code(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// An error at no particular step.
pub(crate) fn plain(error: &Error) -> RuntimeError {
    at(error, RuntimeErrorKind::Other)
}

/// An error at a step.
pub(crate) fn at(error: &Error, kind: RuntimeErrorKind) -> RuntimeError {
    match error {
        Error::DockerResponseServerError { message, .. } => {
            RuntimeError { kind, message: format!("Error response from daemon: {message}") }
        }
        Error::DockerStreamError { error } => RuntimeError { kind, message: error.clone() },
        other => RuntimeError {
            kind: RuntimeErrorKind::Unavailable,
            message: format!("Cannot connect to the Docker daemon: {}", chain(other)),
        },
    }
}

/// An error and all that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
