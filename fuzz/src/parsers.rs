//! Parsers: what they accept is written and read again, and is the same.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

use http::Method;
use podlog_api::{PodLogOptions, RequestInfo, StreamRules, protobuf, query::Query, resource, strict};
use podlog_container::control::{Reply, Request};
use podlog_line::{Cursor, Gap, LineEnd, RecordParser, Timestamp, cri};

/// A number for an answer: its kind, and roughly its size.
pub(crate) fn way(kind: &str, size: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (kind, size.checked_ilog2()).hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn record(input: &[u8]) -> u64 {
    let line = input.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut parser = RecordParser::default();
    let Some(record) = parser.parse(line) else { return way("none", line.len()) };
    let (stream, end, content, time) =
        (record.stream, record.end, record.content.to_vec(), record.time.timestamp());
    assert!(content.len() <= line.len(), "content out of nothing");
    // Only what has no line feed in it can be a record of this format.
    if !content.contains(&b'\n') {
        let mut again = Vec::new();
        cri::append_record(&mut again, time.to_string().as_bytes(), stream, end, &content);
        assert_eq!(again.pop(), Some(b'\n'));
        let mut parser = RecordParser::default();
        let same = parser.parse_cri(&again).expect("what was written is a record");
        assert_eq!(
            (same.stream, same.end, same.content, same.time.timestamp()),
            (stream, end, &content[..], time)
        );
    }
    way(if end == LineEnd::Full { stream.as_str() } else { "partial" }, content.len())
}

pub(crate) fn timestamp(input: &[u8]) -> u64 {
    match Timestamp::parse(input) {
        Ok(time) => {
            assert_eq!(Timestamp::parse(time.to_string().as_bytes()), Ok(time));
            way("time", input.len())
        }
        Err(error) => way(&error.to_string(), 0),
    }
}

pub(crate) fn quote(input: &[u8]) -> u64 {
    let quoted = podlog_line::quote(input);
    assert!(quoted.len() >= 2 && quoted.starts_with('"') && quoted.ends_with('"'));
    assert!(!quoted.chars().any(|c| c.is_control()), "{quoted:?}");
    way("quoted", quoted.len() - input.len().min(quoted.len()))
}

pub(crate) fn gap(input: &[u8]) -> u64 {
    let Some(gap) = Gap::parse_content(input) else { return way("none", 0) };
    let mut again = Vec::new();
    gap.append_content(&mut again);
    assert_eq!(Gap::parse_content(&again), Some(gap));
    way(gap.reason.as_str(), usize::from(gap.lines.is_some()) + 2 * usize::from(gap.from.is_some()) + 1)
}

pub(crate) fn cursor(input: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(input) else { return way("no text", 0) };
    let Ok(cursor) = text.parse::<Cursor>() else { return way("none", text.len()) };
    let again = cursor.to_string();
    assert!(again.len() <= Cursor::MAX_LENGTH, "{again}");
    assert!(again.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{again}");
    assert!(again.parse() == Ok(cursor), "{again}");
    way("cursor", again.len())
}

pub(crate) fn control(input: &[u8]) -> u64 {
    if let Some(reply) = std::str::from_utf8(input).ok().and_then(Reply::parse)
        && !input.contains(&b'\n')
        && !input.contains(&b'\r')
    {
        assert_eq!(Reply::parse(&reply.to_string()), Some(reply));
    }
    match Request::parse(input) {
        Ok(request) => {
            assert_eq!(Request::parse(request.to_string().as_bytes()), Ok(request.clone()));
            way("request", request.to_string().len())
        }
        Err(why) => way(why.split(':').next().unwrap_or_default(), 0),
    }
}

pub(crate) fn log_options(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    // Names beyond Kubernetes' are read under these rules only.
    let _ = PodLogOptions::from_query(&text, StreamRules::Upstream);
    match PodLogOptions::from_query(&text, StreamRules::Exact) {
        Ok(options) => way("options", format!("{options:?}").len()),
        Err(error) => way(&error.to_status()["reason"].to_string(), error.to_string().len()),
    }
}

pub(crate) fn request(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    let _ = Query::parse(query);
    let info = RequestInfo::parse(&Method::GET, path, query);
    way("request", format!("{info:?}").len())
}

pub(crate) fn protobuf(input: &[u8]) -> u64 {
    match protobuf::decode(input) {
        Ok(object) => way("object", object.0.to_string().len()),
        Err(error) => way("error", error.to_string().len()),
    }
}

pub(crate) fn json(input: &[u8]) -> u64 {
    decode(input, strict::MediaType::Json)
}

pub(crate) fn yaml(input: &[u8]) -> u64 {
    decode(input, strict::MediaType::Yaml)
}

/// What is accepted strictly is accepted again as the JSON that was made of it, and is the same.
fn decode(input: &[u8], media_type: strict::MediaType) -> u64 {
    let pods = resource::find("", "v1", "pods").expect("pods are a resource");
    let validation = strict::FieldValidation::Strict;
    match strict::decode(pods, input, media_type, validation) {
        Ok((object, _)) => {
            let text = object.0.to_string();
            let again = strict::decode(pods, text.as_bytes(), strict::MediaType::Json, validation);
            let again = again.map(|(object, _)| object.0.to_string()).map_err(|error| error.to_string());
            assert_eq!(again, Ok(text.clone()));
            way("object", text.len())
        }
        Err(error) => way("error", error.to_string().len()),
    }
}
