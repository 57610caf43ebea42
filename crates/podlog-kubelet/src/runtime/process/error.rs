//! From errors of this module to those of the seam.

use crate::runtime::RuntimeError;

/// Names the step that failed.
pub(super) fn failed<E>(step: impl Into<String>) -> impl FnOnce(E) -> RuntimeError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let step = step.into();
    move |source| RuntimeError::Failed { step, source: source.into() }
}

/// What is not there.
pub(super) fn not_found(what: &'static str, id: &str) -> RuntimeError {
    RuntimeError::NotFound { what, id: id.to_owned() }
}

/// Runs blocking file I/O beside the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed("background work")(error)))
}
