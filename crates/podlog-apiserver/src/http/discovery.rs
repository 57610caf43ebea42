//! Documents about the API itself.

use std::sync::Arc;

use http::header::{ACCEPT, CACHE_CONTROL, ETAG, EXPIRES, IF_NONE_MATCH, VARY};
use http::{HeaderValue, StatusCode};
use podlog_api::accept::Endpoint;
use podlog_api::discovery::{self, Format};
use podlog_api::{ApiError, json, openapi};
use serde_json::Value;

use super::answer::{self, Answer};
use super::negotiation::{coding, error_layout, first};
use super::{App, Call};

/// The document of a path; `None` when it is none of ours.
pub(crate) async fn answer(app: &Arc<App>, call: &Call, path: &str) -> Option<Result<Answer, ApiError>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let document = match parts.as_slice() {
        ["api"] => aggregated(call, |format| discovery::api(format, &app.address)),
        ["apis"] => aggregated(call, discovery::apis),
        ["apis", group] => plain(call, &discovery::group(group)?),
        ["api", version] => plain(call, &discovery::resources("", version)?),
        ["apis", group, version] => plain(call, &discovery::resources(group, version)?),
        ["openapi", "v2"] if openapi::accepts_v2_protobuf(first(&call.headers, ACCEPT)) => {
            Ok(openapi_v2_protobuf(call).await?)
        }
        ["openapi", "v2"] => Ok(built(call, "application/json", || Some(openapi::v2())).await?),
        ["openapi", "v3"] => Ok(built(call, "application/json", || Some(openapi::v3_index())).await?),
        ["openapi", "v3", rest @ ..] => Ok(openapi_v3(call, &rest.join("/")).await?),
        _ => return None,
    };
    Some(document)
}

fn aggregated(call: &Call, make: impl Fn(Format) -> Value) -> Result<Answer, ApiError> {
    let format = Format::negotiate(first(&call.headers, ACCEPT));
    if format == Format::Legacy {
        return plain(call, &make(format));
    }
    let body = json::to_body(&make(format), error_layout(&call.headers, &call.raw_query));
    let mut answer = tagged(call, discovery::etag(&body), format.content_type(), body);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(answer)
}

fn plain(call: &Call, document: &Value) -> Result<Answer, ApiError> {
    Ok(call.wanted(Endpoint::Plain)?.answer(StatusCode::OK, document))
}

/// The only encoding that kubectl before 1.29 reads.
async fn openapi_v2_protobuf(call: &Call) -> Option<Answer> {
    let body = tokio::task::spawn_blocking(openapi::v2_protobuf).await.ok()?;
    Some(tagged(call, discovery::etag(&body), openapi::V2_PROTOBUF, body))
}

async fn openapi_v3(call: &Call, path: &str) -> Option<Answer> {
    let owned = path.to_owned();
    // The first to ask waits for the hashes of all documents.
    let hash = tokio::task::spawn_blocking(move || openapi::v3_hash(&owned)).await.ok()??;
    let etag = format!("\"{hash}\"");
    let owned = path.to_owned();
    let mut answer = if matches_etag(call, &etag) {
        not_modified(&etag)
    } else {
        built(call, "application/json", move || openapi::v3_document(&owned)).await?
    };
    if let Ok(value) = HeaderValue::try_from(&etag) {
        answer.headers_mut().insert(ETAG, value);
    }
    // A link with the right hash never changes its meaning.
    if call.query.first("hash") == Some(hash) {
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        answer.headers_mut().insert(EXPIRES, HeaderValue::from_static("Thu, 31 Dec 2099 23:59:59 GMT"));
    }
    Some(answer)
}

/// A large document: made and encoded off the async threads.
async fn built(
    call: &Call,
    content_type: &'static str,
    make: impl FnOnce() -> Option<Value> + Send + 'static,
) -> Option<Answer> {
    let layout = error_layout(&call.headers, &call.raw_query);
    let work = move || make().map(|document| json::to_body(&document, layout));
    let body = tokio::task::spawn_blocking(work).await.ok()??;
    Some(tagged(call, discovery::etag(&body), content_type, body))
}

fn tagged(call: &Call, etag: String, content_type: &'static str, body: Vec<u8>) -> Answer {
    if matches_etag(call, &etag) {
        return not_modified(&etag);
    }
    let mut answer = answer::encoded(coding(&call.headers), StatusCode::OK, content_type, body);
    if let Ok(value) = HeaderValue::try_from(etag) {
        answer.headers_mut().insert(ETAG, value);
    }
    answer
}

fn matches_etag(call: &Call, etag: &str) -> bool {
    first(&call.headers, IF_NONE_MATCH).split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag)
}

fn not_modified(etag: &str) -> Answer {
    let mut answer = answer::no_content();
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    if let Ok(value) = HeaderValue::try_from(etag) {
        answer.headers_mut().insert(ETAG, value);
    }
    answer
}
