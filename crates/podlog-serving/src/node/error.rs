//! Why a node did not answer, in Go's words: users and tools know them from Kubernetes.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use crate::tls::{GoTlsError, alert_text};

/// No answer came from a node. `Display` is the text of Go's `net/http`, which clients see as the message of a 500.
#[derive(Debug, thiserror::Error)]
#[error("Get {url:?}: {cause}")]
pub struct DialError {
    /// What was asked for.
    pub url: String,
    /// Why nothing came back.
    pub cause: DialCause,
}

/// What went wrong on the way to an answer.
#[derive(Debug, thiserror::Error)]
pub enum DialCause {
    /// The node's name means nothing.
    #[error("dial tcp: lookup {name}{server}: {reason}")]
    Lookup {
        /// The name.
        name: String,
        /// ` on <address>:53`, where the name server is known.
        server: String,
        /// E.g. `no such host`.
        reason: String,
    },
    /// No connection.
    #[error("dial tcp {address}: {reason}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// E.g. `connect: connection refused`.
        reason: String,
    },
    /// The node is not the one that it should be, or does not believe us.
    #[error("{0}")]
    Tls(String),
    /// The connection stands, but TLS does not come about in time.
    #[error("net/http: TLS handshake timeout")]
    HandshakeTimeout,
    /// Something answers, but not with TLS.
    #[error("http: server gave HTTP response to HTTPS client")]
    PlainHttp,
    /// The peer closed before it answered.
    #[error("EOF")]
    Eof,
    /// The connection broke.
    #[error("read tcp {local}->{remote}: read: {reason}")]
    Read {
        /// Our end.
        local: SocketAddr,
        /// Their end.
        remote: SocketAddr,
        /// E.g. `connection reset by peer`.
        reason: String,
    },
    /// The peer no longer answers pings.
    #[error("http2: client connection lost")]
    ConnectionLost,
    /// The answer points elsewhere; a node is not believed to know better.
    #[error("redirects forbidden")]
    Redirect,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Both ends of a connection, and how TLS failed on it: HTTP/2 keeps no more than the text of that.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) tls_failure: Arc<OnceLock<rustls::Error>>,
}

impl Ends {
    /// Remembers a failure of TLS.
    pub(super) fn note(&self, error: &io::Error) {
        if let Some(error) = tls_error(error) {
            self.tls_failure.get_or_init(|| error.clone());
        }
    }
}

impl DialCause {
    /// Why a TCP connection could not be made.
    pub(super) fn connect(address: SocketAddr, error: &io::Error) -> Self {
        DialCause::Connect { address, reason: format!("connect: {}", errno_text(error)) }
    }

    /// Why a handshake failed, other than by time.
    pub(super) fn handshake(error: &io::Error, ends: &Ends) -> Self {
        match tls_error(error) {
            Some(error) => DialCause::Tls(tls_text(error)),
            None => Self::read(error, ends),
        }
    }

    /// Why an answer, or a part of it, could not be read.
    pub(crate) fn exchange(error: &hyper::Error, ends: &Ends) -> Self {
        if error.is_timeout() {
            return DialCause::ConnectionLost;
        }
        if let Some(error) = ends.tls_failure.get() {
            return DialCause::Tls(tls_text(error));
        }
        let http2 = find::<h2::Error>(error);
        match find::<io::Error>(error).or_else(|| http2?.get_io()) {
            Some(io) => Self::handshake(io, ends),
            None if http2.is_some_and(h2::Error::is_remote) => DialCause::Other(http2_text(http2)),
            None if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
                DialCause::Eof
            }
            None => DialCause::Other(innermost(error)),
        }
    }

    fn read(error: &io::Error, ends: &Ends) -> Self {
        let (local, remote) = (ends.local, ends.remote);
        match error.kind() {
            io::ErrorKind::UnexpectedEof => DialCause::Eof,
            // What HTTP/2 makes of an end of the connection while streams are open.
            io::ErrorKind::BrokenPipe if error.raw_os_error().is_none() => DialCause::Eof,
            _ => DialCause::Read { local, remote, reason: errno_text(error) },
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| inner.downcast_ref().and_then(tls_error))
}

fn tls_text(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error, PeerIncompatible};
    match error {
        Error::AlertReceived(alert) => alert_text(*alert),
        Error::InvalidCertificate(CertificateError::Other(other)) if other.0.is::<GoTlsError>() => {
            other.0.to_string()
        }
        Error::InvalidMessage(_) => "tls: first record does not look like a TLS handshake".into(),
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "remote error: tls: protocol version not supported".into()
        }
        other => format!("tls: {other}"),
    }
}

/// As Go's `http2.StreamError` and `GoAwayError`, whose numbers of streams we do not know.
fn http2_text(error: Option<&h2::Error>) -> String {
    let code = error.and_then(h2::Error::reason).map(|reason| format!("{reason:?}")).unwrap_or_default();
    match error {
        Some(error) if error.is_go_away() => {
            format!("http2: server sent GOAWAY and closed the connection; ErrCode={code}")
        }
        _ => format!("stream error: {code}; received from peer"),
    }
}

/// `Connection refused (os error 111)` becomes `connection refused`, as in Go's table of errors. HTTP/2 passes on no more than
/// the kind of an error.
fn errno_text(error: &io::Error) -> String {
    match (error.raw_os_error(), error.kind()) {
        (None, io::ErrorKind::TimedOut) => "i/o timeout".into(),
        (None, io::ErrorKind::ConnectionReset) => "connection reset by peer".into(),
        (None, io::ErrorKind::ConnectionAborted) => "software caused connection abort".into(),
        _ => {
            let text = error.to_string();
            text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words).to_lowercase()
        }
    }
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_named_as_go_names_them() {
        use rustix::io::Errno;
        let rows = [
            (Errno::CONNREFUSED, "connection refused"),
            (Errno::HOSTUNREACH, "no route to host"),
            (Errno::NETUNREACH, "network is unreachable"),
            (Errno::CONNRESET, "connection reset by peer"),
            (Errno::TIMEDOUT, "connection timed out"),
            (Errno::PIPE, "broken pipe"),
        ];
        for (errno, text) in rows {
            assert_eq!(errno_text(&io::Error::from_raw_os_error(errno.raw_os_error())), text);
        }
    }

    #[test]
    fn the_whole_text_is_gos() {
        let address: SocketAddr = "[fd00::1]:10250".parse().unwrap();
        let url = || "https://[fd00::1]:10250/containerLogs/a/b/c?follow=true".to_owned();
        let refused = io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
        let lookup = DialCause::Lookup {
            name: "n".into(),
            server: " on 10.0.0.1:53".into(),
            reason: "no such host".into(),
        };
        let rows = [
            (DialCause::connect(address, &refused), "dial tcp [fd00::1]:10250: connect: connection refused"),
            (lookup, "dial tcp: lookup n on 10.0.0.1:53: no such host"),
        ];
        for (cause, text) in rows {
            let prefix = r#"Get "https://[fd00::1]:10250/containerLogs/a/b/c?follow=true": "#;
            assert_eq!(DialError { url: url(), cause }.to_string(), format!("{prefix}{text}"));
        }
    }
}
