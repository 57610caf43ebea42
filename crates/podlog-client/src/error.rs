//! Failures as kubectl prints them.

use std::io;

use podlog_api::node_response;
use serde_json::Value;

/// What a client can fail with. `Display` is the whole text for stderr, as kubectl would print it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The arguments do not say what to do.
    #[error("error: {0}\nSee 'podlog logs -h' for help and examples")]
    Usage(String),
    /// The arguments contradict each other or the objects they name, or something else is wrong on this side.
    #[error("error: {0}")]
    Invalid(String),
    /// The server answered with a failure.
    #[error("{}", rendered(.0))]
    Status(Box<ServerStatus>),
    /// The server could not be reached.
    #[error("{}", unreachable_text(.server, .cause))]
    Unreachable {
        /// Host and port.
        server: String,
        /// Why, innermost first.
        cause: String,
    },
    /// An answer broke off before its end.
    #[error("error: {0}")]
    Broken(String),
    /// Our own output could not be written.
    #[error("error: write /dev/stdout: {}", io_text(.0))]
    Output(#[source] io::Error),
}

impl ClientError {
    /// Whether the reader of our output has gone; nobody needs to be told.
    pub fn is_closed_output(&self) -> bool {
        matches!(self, ClientError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The server's `Status`, where it answered with one.
    pub fn status(&self) -> Option<&ServerStatus> {
        match self {
            ClientError::Status(status) => Some(status),
            _ => None,
        }
    }

    /// The text without kubectl's decoration.
    pub fn message(&self) -> String {
        match self {
            ClientError::Status(status) => status.message.clone(),
            ClientError::Usage(text) | ClientError::Invalid(text) | ClientError::Broken(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

/// A failure that the server answered with.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerStatus {
    /// HTTP status code.
    pub code: u16,
    /// `Status.reason`, or empty.
    pub reason: String,
    /// `Status.message`.
    pub message: String,
    /// `Status.details`, or null.
    pub details: Value,
}

/// What a request was about, for answers that do not say it themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) verb: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) name: &'a str,
}

impl ServerStatus {
    /// Reads an answer with an error code; one that is no `Status` gets the text of client-go.
    pub(crate) fn read(code: u16, body: &[u8], subject: Subject<'_>) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(status) if status["kind"] == "Status" => ServerStatus {
                code,
                reason: text(&status, "reason"),
                message: text(&status, "message"),
                details: status.get("details").cloned().unwrap_or_default(),
            },
            _ => Self::generic(code, body, subject),
        }
    }

    fn generic(code: u16, body: &[u8], subject: Subject<'_>) -> Self {
        let error = node_response::to_error("", code, body);
        let Subject { verb, resource, name } = subject;
        let place = format!("({})", [verb, resource, name].join(" ").trim_end());
        let message = match error.message.strip_suffix("( pods/log)") {
            Some(message) => format!("{message}{place}"),
            None => error.message.clone(),
        };
        ServerStatus { code, reason: error.reason.as_str().into(), message, details: Value::Null }
    }
}

/// As `StandardErrorMessage` and `checkErr` in `k8s.io/kubectl/pkg/cmd/util/helpers.go`.
fn rendered(status: &ServerStatus) -> String {
    let ServerStatus { reason, message, details, .. } = status;
    match reason.as_str() {
        "Unauthorized" => format!("error: You must be logged in to the server ({message})"),
        "Invalid" => rendered_invalid(message, details),
        "" => format!("Error from server: {message}"),
        reason => format!("Error from server ({reason}): {message}"),
    }
}

fn rendered_invalid(message: &str, details: &Value) -> String {
    if !details.is_object() {
        return format!("The request is invalid: {message}");
    }
    let prefix = format!("The {} \"{}\" is invalid", text(details, "kind"), text(details, "name"));
    let causes = details["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<String> = Vec::new();
    for cause in causes {
        let line = format!("{}: {}", text(cause, "field"), text(cause, "message"));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    match lines.as_slice() {
        [] => prefix,
        [one] => format!("{prefix}: {one}"),
        several => format!("{prefix}: \n* {}", several.join("\n* ")),
    }
}

fn unreachable_text(server: &str, cause: &str) -> String {
    if cause.contains("connection refused") {
        format!("The connection to the server {server} was refused - did you specify the right host or port?")
    } else {
        format!("Unable to connect to the server: {cause}")
    }
}

/// An I/O error in Go's words: lower case, without a number.
pub(crate) fn io_text(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET_POD: Subject<'static> = Subject { verb: "get", resource: "pods", name: "x" };

    fn said(code: u16, body: &str) -> String {
        ClientError::Status(Box::new(ServerStatus::read(code, body.as_bytes(), GET_POD))).to_string()
    }

    #[test]
    fn answers_read_as_kubectls() {
        let rows = [
            (
                404,
                r#"{"kind":"Status","reason":"NotFound","message":"pods \"x\" not found"}"#,
                "Error from server (NotFound): pods \"x\" not found",
            ),
            (
                500,
                r#"{"kind":"Status","message":"Get \"https://n\": EOF"}"#,
                "Error from server: Get \"https://n\": EOF",
            ),
            (
                401,
                r#"{"kind":"Status","reason":"Unauthorized","message":"Unauthorized"}"#,
                "error: You must be logged in to the server (Unauthorized)",
            ),
            (
                422,
                r#"{"kind":"Status","reason":"Invalid","message":"m","details":{"name":"x","kind":"PodLogOptions","causes":[{"field":"tailLines","message":"bad"}]}}"#,
                "The PodLogOptions \"x\" is invalid: tailLines: bad",
            ),
            (
                422,
                r#"{"kind":"Status","reason":"Invalid","message":"m","details":{"name":"x","kind":"PodLogOptions","causes":[{"field":"a","message":"b"},{"field":"c","message":"d"}]}}"#,
                "The PodLogOptions \"x\" is invalid: \n* a: b\n* c: d",
            ),
            (
                422,
                r#"{"kind":"Status","reason":"Invalid","message":"m","details":{"name":"x","kind":"pods/log"}}"#,
                "The pods/log \"x\" is invalid",
            ),
            (
                502,
                "<html>bad gateway</html>",
                "Error from server (InternalError): an error on the server (\"<html>bad gateway</html>\") has prevented the request from succeeding (get pods x)",
            ),
            (
                503,
                "",
                "Error from server (ServiceUnavailable): the server is currently unable to handle the request (get pods x)",
            ),
        ];
        for (code, body, text) in rows {
            assert_eq!(said(code, body), text);
        }
    }

    #[test]
    fn servers_that_are_not_there_are_named() {
        let error =
            |cause: &str| ClientError::Unreachable { server: "127.0.0.1:1".into(), cause: cause.into() };
        assert_eq!(
            error("tcp connect error: connection refused").to_string(),
            "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?"
        );
        assert_eq!(error("no such host").to_string(), "Unable to connect to the server: no such host");
    }
}
