//! Where the runtime listens.

use std::path::PathBuf;
use std::str::FromStr;

/// The socket of a runtime: `unix:///run/containerd/containerd.sock`, or just its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

/// Why a text names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "endpoint {0:?} is not usable: give the absolute path of a socket, as in unix:///run/containerd/containerd.sock"
)]
pub struct EndpointError(String);

impl Endpoint {
    /// Path of the socket.
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
        let is_socket_path = path.is_absolute() && path.file_name().is_some();
        is_socket_path.then_some(Endpoint(path)).ok_or_else(|| EndpointError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_absolute_paths() {
        for (text, expected) in [
            ("unix:///run/containerd/containerd.sock", Some("/run/containerd/containerd.sock")),
            ("/run/crio/crio.sock", Some("/run/crio/crio.sock")),
            ("unix://run/x.sock", None),
            ("containerd.sock", None),
            ("tcp://127.0.0.1:1", None),
            ("unix:///", None),
            ("", None),
        ] {
            let path = text.parse::<Endpoint>().ok().map(|endpoint| endpoint.0);
            assert_eq!(path, expected.map(PathBuf::from), "{text}");
        }
    }
}
