//! OpenAPI documents: what kubectl validates, merges and explains with.
//!
//! Built when asked for and not kept. Version 3 is what current clients use, one document a group version; version 2 is
//! derived from them.

mod gnostic;
mod paths;
mod schemas;
mod swagger;

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::discovery::Fnv;
use crate::resource;

/// `GET /openapi/v3`: where each group version's document is, with its hash, so that clients can keep it.
pub fn v3_index() -> Value {
    let paths: Map<String, Value> = v3_hashes()
        .iter()
        .map(|(path, hash)| {
            (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
        })
        .collect();
    json!({ "paths": paths })
}

/// `GET /openapi/v3/<path>`, the path being `api/v1` or `apis/<group>/<version>`; `None` for one that is not served.
pub fn v3_document(path: &str) -> Option<Value> {
    let (group, version) = resource::group_versions()
        .into_iter()
        .find(|(group, version)| document_path(group, version) == path)?;
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::of(group, version),
        "components": {
            "schemas": schemas::of(group, version),
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "in": "header", "name": "authorization",
                "description": "Bearer Token authentication",
            }},
        },
    }))
}

/// The hash of a document as the index names it.
pub fn v3_hash(path: &str) -> Option<&'static str> {
    v3_hashes().iter().find(|(known, _)| known == path).map(|(_, hash)| hash.as_str())
}

/// `GET /openapi/v2`, as JSON.
pub fn v2() -> Value {
    let documents =
        resource::group_versions().into_iter().filter_map(|(g, v)| v3_document(&document_path(g, v)));
    swagger::merge(info(), documents)
}

/// `GET /openapi/v2` in protobuf: the only format of it that kubectl before 1.29 asks for.
pub fn v2_protobuf() -> Vec<u8> {
    gnostic::encode(&v2())
}

/// Whether an `Accept` header asks for [`v2_protobuf`]. The media type is written with `@` by clients, which MIME does not
/// allow, hence the other spelling in the answer.
pub fn accepts_v2_protobuf(accept: &str) -> bool {
    let mut media_types = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    media_types.any(|media_type| {
        media_type == V2_PROTOBUF
            || media_type == "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    })
}

/// The `Content-Type` of [`v2_protobuf`].
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

fn info() -> Value {
    json!({"title": "Kubernetes", "version": concat!("podlog-", env!("CARGO_PKG_VERSION"))})
}

fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Path and hash of every document. The documents themselves are dropped again.
fn v3_hashes() -> &'static [(String, String)] {
    static HASHES: OnceLock<Vec<(String, String)>> = OnceLock::new();
    HASHES.get_or_init(|| {
        let paths = resource::group_versions().into_iter().map(|(g, v)| document_path(g, v));
        paths.filter_map(|path| v3_document(&path).map(|document| (path, hash(&document)))).collect()
    })
}

fn hash(document: &Value) -> String {
    struct Sink(Fnv);
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.add(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(Fnv::default());
    serde_json::to_writer(&mut sink, document).expect("a JSON value is written, and the sink takes all");
    sink.0.hex()
}

#[cfg(test)]
mod tests;
