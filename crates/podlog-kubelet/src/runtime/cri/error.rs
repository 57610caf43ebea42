//! From gRPC's errors to those of the seam.

use std::time::Duration;

use tonic::{Code, Status};

use crate::runtime::RuntimeError;

/// What became of a call that has a deadline.
pub(super) enum Failure {
    /// The runtime or the way to it says no.
    Status(Status),
    /// No answer in time.
    Deadline(Duration),
}

impl Failure {
    /// Whether the runtime says that what the call is about does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Failure::Status(status) if status.code() == Code::NotFound)
    }

    /// Whether the runtime does not know the call.
    pub(super) fn is_unimplemented(&self) -> bool {
        matches!(self, Failure::Status(status) if status.code() == Code::Unimplemented)
    }

    /// Whether the runtime gave the command up because its time was over.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            Failure::Status(status) => status.code() == Code::DeadlineExceeded,
            Failure::Deadline(_) => true,
        }
    }

    /// What the runtime said, without gRPC's frame around it.
    pub(super) fn into_message(self) -> Result<String, RuntimeError> {
        match self {
            Failure::Status(status) if is_answer(&status) => Ok(status.message().to_owned()),
            other => Err(other.into()),
        }
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Deadline(limit) => RuntimeError::Unavailable(format!("no answer within {limit:?}")),
            Failure::Status(status) if is_answer(&status) => {
                RuntimeError::Rpc { code: code_name(status.code()), message: status.message().to_owned() }
            }
            Failure::Status(status) => RuntimeError::Unavailable(with_causes(&status)),
        }
    }
}

/// Whether the runtime itself answered; a connection that failed has a cause of ours.
fn is_answer(status: &Status) -> bool {
    status.code() != Code::Unavailable && std::error::Error::source(status).is_none()
}

fn with_causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The code's name as Go prints it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
