//! Which representation a client gets, from its `Accept`, `User-Agent` and `pretty`.
//!
//! As `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`. Objects are not written in protobuf here: a client that
//! lists it before JSON, as typed clients do, gets JSON.

use crate::json::Layout;
use crate::query::Query;
use crate::strict::MediaType;
use crate::{ApiError, Details, Reason};

/// What a route can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An object or a list, which may be asked for as a table or as metadata only.
    Objects,
    /// An object that is nothing but itself, e.g. a review.
    Plain,
    /// A stream of events, with objects or tables in them.
    Watch,
    /// The log of a container. Its bytes are `text/plain` whatever is asked for, but what is asked for has to be a
    /// representation of objects: `text/plain` alone is refused.
    Log,
}

/// The format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`; offered for logs only, where it does not matter.
    Protobuf,
}

/// What is answered in place of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    /// The object or list itself.
    Object,
    /// `Table`: columns and rows, as `kubectl get` prints them.
    Table(MetaVersion),
    /// `PartialObjectMetadata`: an object without spec and status.
    PartialObjectMetadata(MetaVersion),
    /// `PartialObjectMetadataList`.
    PartialObjectMetadataList(MetaVersion),
}

/// The version of `meta.k8s.io` in which a representation is asked for; the versions differ in their name only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    /// `meta.k8s.io/v1`.
    V1,
    /// `meta.k8s.io/v1beta1`.
    V1Beta1,
}

impl MetaVersion {
    /// For `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The outcome of a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Format.
    pub encoding: Encoding,
    /// What of the object.
    pub representation: Representation,
    /// Whether the client's `Accept` asked for indentation by `pretty=1`.
    pub pretty: bool,
}

impl Encoding {
    /// The media type, for `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

impl Endpoint {
    fn encodings(self) -> &'static [Encoding] {
        match self {
            Endpoint::Log => &[Encoding::Json, Encoding::Yaml, Encoding::Protobuf],
            _ => &[Encoding::Json, Encoding::Yaml],
        }
    }

    /// Media types that the route is registered with.
    fn produces(self) -> Vec<&'static str> {
        let first = match self {
            Endpoint::Log => Some("text/plain"),
            _ => None,
        };
        let encodings = self.encodings().iter().map(|encoding| encoding.media_type());
        first.into_iter().chain(encodings).collect()
    }

    fn allows(self, representation: Representation) -> bool {
        match representation {
            Representation::Object => true,
            _ => matches!(self, Endpoint::Objects | Endpoint::Watch),
        }
    }
}

/// Chooses the representation. `accept` is the header's value, empty where there is none.
///
/// # Errors
/// 406. Its body is always indented JSON: see [`error_layout`].
pub fn negotiate(accept: &str, endpoint: Endpoint) -> Result<Accepted, ApiError> {
    if accept.is_empty() {
        return Ok(Accepted {
            encoding: Encoding::Json,
            representation: Representation::Object,
            pretty: false,
        });
    }
    let clauses = Clause::parse_all(accept);
    if !clauses
        .iter()
        .any(|clause| endpoint.produces().into_iter().any(|media_type| clause.admits(media_type)))
    {
        return Err(no_representation(endpoint));
    }
    let accepted = clauses.iter().find_map(|clause| clause.accept(endpoint));
    match accepted {
        // YAML has no form in which one document follows another.
        Some(Accepted { encoding: Encoding::Yaml, .. }) if endpoint == Endpoint::Watch => {
            Err(not_acceptable(endpoint))
        }
        Some(accepted) => Ok(accepted),
        None => Err(not_acceptable(endpoint)),
    }
}

/// How the body of an answer is laid out: indented when the client asks for it, or is a person's.
pub fn layout(accepted: Accepted, query: &str, user_agent: &str) -> Layout {
    if accepted.pretty || is_pretty(query, user_agent) { Layout::Indented } else { Layout::Compact }
}

/// How the body of a failure is laid out. It is JSON whatever is accepted, and indented where nothing acceptable
/// could be found.
pub fn error_layout(accept: &str, query: &str, user_agent: &str) -> Layout {
    negotiate(accept, Endpoint::Log).map_or(Layout::Indented, |accepted| layout(accepted, query, user_agent))
}

/// The media type of a log that may be compressed on its way. Kubernetes knows no such thing, so it is only used for clients
/// that ask for it by name.
pub const LOG_MEDIA_TYPE: &str = "application/vnd.podlog.log";

/// How a log may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogCoding {
    /// `gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
}

impl LogCoding {
    /// Its name in `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            LogCoding::Gzip => "gzip",
            LogCoding::Zstd => "zstd",
        }
    }

    /// The coding that a client accepts, zstd before gzip where it likes both as much.
    pub fn negotiate(accept_encoding: &str) -> Option<LogCoding> {
        let quality = |coding: LogCoding| {
            let clauses = accept_encoding.split(',').filter_map(|clause| {
                let mut parts = clause.split(';').map(str::trim);
                let named = parts.next()?.eq_ignore_ascii_case(coding.name());
                named.then(|| parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0))
            });
            clauses.fold(0.0_f32, f32::max)
        };
        let [zstd, gzip] = [LogCoding::Zstd, LogCoding::Gzip].map(quality);
        match zstd.max(gzip) > 0.0 {
            false => None,
            true if zstd >= gzip => Some(LogCoding::Zstd),
            true => Some(LogCoding::Gzip),
        }
    }
}

/// Whether a log is asked for as [`LOG_MEDIA_TYPE`], by its name.
pub fn wants_log_media_type(accept: &str) -> bool {
    let named = |clause: &Clause<'_>| {
        LOG_MEDIA_TYPE.split_once('/') == Some((clause.kind, clause.subtype)) && clause.quality > 0.0
    };
    Clause::parse_all(accept).iter().any(named)
}

/// The format of a request's body, from its `Content-Type`; empty means JSON.
///
/// # Errors
/// 415 for a type that the API does not read.
pub fn request_body(content_type: &str) -> Result<MediaType, ApiError> {
    MediaType::from_content_type(content_type).ok_or_else(|| {
        let known = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf].map(Encoding::media_type).join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {known}"
        );
        ApiError::new(415, Reason::UnsupportedMediaType, message)
    })
}

fn is_pretty(query: &str, user_agent: &str) -> bool {
    match Query::parse(query).first("pretty") {
        None | Some("") => ["curl", "Wget", "Mozilla/5.0"].iter().any(|agent| user_agent.starts_with(agent)),
        // What Go's strconv.ParseBool takes for true.
        Some(value) => matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

fn not_acceptable(endpoint: Endpoint) -> ApiError {
    let types: Vec<String> = match endpoint {
        Endpoint::Watch => vec![format!("{};stream=watch", Encoding::Json.media_type())],
        _ => endpoint.encodings().iter().map(|encoding| encoding.media_type().to_owned()).collect(),
    };
    let message = format!("only the following media types are accepted: {}", types.join(", "));
    ApiError::new(406, Reason::NotAcceptable, message)
}

/// What the router says before any negotiation, when the client names nothing that the route has.
fn no_representation(endpoint: Endpoint) -> ApiError {
    let types = endpoint.produces().join(", ");
    let message = format!("406: Not Acceptable\n\nAvailable representations: {types}");
    ApiError::new(406, Reason::NotAcceptable, message).with_details(Details::default())
}

/// One part of an `Accept` header.
#[derive(Debug)]
struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    /// The clauses, most wanted first: by quality, then specific ones before wildcards, then as given.
    fn parse_all(accept: &'a str) -> Vec<Clause<'a>> {
        let mut clauses: Vec<Clause<'a>> = accept.split(',').filter_map(Clause::parse).collect();
        clauses.sort_by(|a, b| {
            let wild = |clause: &Clause<'_>| (clause.kind == "*", clause.subtype == "*");
            b.quality.total_cmp(&a.quality).then_with(|| wild(a).cmp(&wild(b)))
        });
        clauses
    }

    fn parse(text: &'a str) -> Option<Clause<'a>> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|media_type| !media_type.is_empty())?;
        let (kind, subtype) = match media_type.split_once('/') {
            Some((kind, subtype)) => (kind.trim(), subtype.trim()),
            None if media_type == "*" => ("*", "*"),
            None => return None,
        };
        let mut clause = Clause { kind, subtype, quality: 1.0, parameters: Vec::new() };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "q" => clause.quality = value.trim().parse().unwrap_or(1.0),
                name => clause.parameters.push((name, value.trim())),
            }
        }
        Some(clause)
    }

    fn admits(&self, media_type: &str) -> bool {
        let (kind, subtype) = media_type.split_once('/').unwrap_or((media_type, ""));
        (self.kind == "*" || self.kind == kind) && (self.subtype == "*" || self.subtype == subtype)
    }

    fn accept(&self, endpoint: Endpoint) -> Option<Accepted> {
        let encoding = *endpoint.encodings().iter().find(|encoding| self.admits(encoding.media_type()))?;
        let representation = self.representation().filter(|wanted| endpoint.allows(*wanted))?;
        if !matches!(self.parameter("stream"), "" | "watch") || !self.parameter("sv").is_empty() {
            return None;
        }
        Some(Accepted { encoding, representation, pretty: self.parameter("pretty") == "1" })
    }

    /// `None` for a conversion that nobody knows.
    fn representation(&self) -> Option<Representation> {
        let version = match (self.parameter("as"), self.parameter("g"), self.parameter("v")) {
            ("", "", "") => return Some(Representation::Object),
            (_, "meta.k8s.io", "v1") => MetaVersion::V1,
            (_, "meta.k8s.io", "v1beta1") => MetaVersion::V1Beta1,
            _ => return None,
        };
        match self.parameter("as") {
            "Table" => Some(Representation::Table(version)),
            "PartialObjectMetadata" => Some(Representation::PartialObjectMetadata(version)),
            "PartialObjectMetadataList" => Some(Representation::PartialObjectMetadataList(version)),
            _ => None,
        }
    }

    fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KUBECTL_GET: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

    #[test]
    fn objects() {
        use Encoding::{Json, Yaml};
        use MetaVersion::{V1, V1Beta1};
        use Representation::{Object, PartialObjectMetadata, PartialObjectMetadataList, Table};
        for (accept, endpoint, expected) in [
            ("", Endpoint::Objects, Some((Json, Object))),
            ("*/*", Endpoint::Objects, Some((Json, Object))),
            ("*", Endpoint::Objects, Some((Json, Object))),
            ("application/*", Endpoint::Objects, Some((Json, Object))),
            ("application/json", Endpoint::Objects, Some((Json, Object))),
            ("application/json, */*", Endpoint::Objects, Some((Json, Object))),
            ("application/yaml", Endpoint::Objects, Some((Yaml, Object))),
            ("application/json;q=0.5, application/yaml", Endpoint::Objects, Some((Yaml, Object))),
            ("*/*, application/yaml", Endpoint::Objects, Some((Yaml, Object))),
            ("application/*, application/yaml", Endpoint::Objects, Some((Yaml, Object))),
            ("text/html, image/png, */*;q=0.8", Endpoint::Objects, Some((Json, Object))),
            ("application/vnd.kubernetes.protobuf,application/json", Endpoint::Objects, Some((Json, Object))),
            ("application/vnd.kubernetes.protobuf, */*", Endpoint::Plain, Some((Json, Object))),
            ("application/vnd.kubernetes.protobuf", Endpoint::Objects, None),
            (KUBECTL_GET, Endpoint::Objects, Some((Json, Table(V1)))),
            (KUBECTL_GET, Endpoint::Watch, Some((Json, Table(V1)))),
            (KUBECTL_GET, Endpoint::Plain, Some((Json, Object))),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                Endpoint::Objects,
                Some((Json, Table(V1Beta1))),
            ),
            ("application/yaml;as=Table;v=v1;g=meta.k8s.io", Endpoint::Objects, Some((Yaml, Table(V1)))),
            ("application/json;as=Table;v=v1;g=other", Endpoint::Objects, None),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", Endpoint::Objects, None),
            ("application/json;as=Status;v=v1;g=meta.k8s.io", Endpoint::Objects, None),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Endpoint::Objects,
                Some((Json, PartialObjectMetadata(V1))),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Endpoint::Objects,
                Some((Json, PartialObjectMetadataList(V1))),
            ),
            ("application/json;stream=watch", Endpoint::Watch, Some((Json, Object))),
            ("application/json;stream=other", Endpoint::Watch, None),
            ("application/json;sv=v1", Endpoint::Objects, None),
            ("application/yaml", Endpoint::Watch, None),
            ("application/yaml, application/json", Endpoint::Watch, None),
            ("text/plain", Endpoint::Objects, None),
            ("nonsense", Endpoint::Objects, None),
            (",;q=1,", Endpoint::Objects, None),
        ] {
            let accepted = negotiate(accept, endpoint).ok();
            let found = accepted.map(|accepted| (accepted.encoding, accepted.representation));
            assert_eq!(found, expected, "{accept} {endpoint:?}");
        }
    }

    #[test]
    fn logs() {
        let refused = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        let unknown = "406: Not Acceptable\n\nAvailable representations: text/plain, application/json, application/yaml, application/vnd.kubernetes.protobuf";
        for (accept, expected) in [
            ("", Ok(())),
            ("*/*", Ok(())),
            ("application/*", Ok(())),
            ("application/json", Ok(())),
            ("application/json, */*", Ok(())),
            ("application/yaml", Ok(())),
            ("application/vnd.kubernetes.protobuf", Ok(())),
            ("text/plain, */*", Ok(())),
            ("text/plain", Err(refused)),
            ("text/*", Err(refused)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", Err(refused)),
            ("image/png", Err(unknown)),
        ] {
            let result = negotiate(accept, Endpoint::Log);
            let result = result.as_ref().map(|_| ()).map_err(|error| error.message.as_str());
            assert_eq!(result, expected, "{accept}");
        }
    }

    #[test]
    fn logs_are_compressed_for_those_who_name_their_type() {
        let rows = [
            (LOG_MEDIA_TYPE, true),
            ("application/vnd.podlog.log;q=0.5, */*", true),
            ("application/vnd.podlog.log;q=0", false),
            ("application/json, */*", false),
            ("", false),
        ];
        for (accept, expected) in rows {
            assert_eq!(wants_log_media_type(accept), expected, "{accept}");
        }
        let rows = [
            ("zstd, gzip", Some(LogCoding::Zstd)),
            ("gzip, ZSTD;q=0.9", Some(LogCoding::Gzip)),
            ("gzip;q=0.5, zstd; q=0.5", Some(LogCoding::Zstd)),
            ("zstd;q=0, gzip;q=0", None),
            ("br, *", None),
            ("", None),
        ];
        for (accept, expected) in rows {
            assert_eq!(LogCoding::negotiate(accept), expected, "{accept}");
        }
    }

    #[test]
    fn meta_versions() {
        assert_eq!(MetaVersion::V1.api_version(), "meta.k8s.io/v1");
        assert_eq!(MetaVersion::V1Beta1.api_version(), "meta.k8s.io/v1beta1");
    }

    #[test]
    fn refusals() {
        let watch = negotiate("application/yaml", Endpoint::Watch).expect_err("refused");
        assert_eq!(
            watch.message,
            "only the following media types are accepted: application/json;stream=watch"
        );
        assert_eq!((watch.code, watch.reason, watch.details), (406, Reason::NotAcceptable, None));
        let objects = negotiate("application/json;as=X", Endpoint::Objects).expect_err("refused");
        assert_eq!(
            objects.message,
            "only the following media types are accepted: application/json, application/yaml"
        );
    }

    #[test]
    fn layouts() {
        use Layout::{Compact, Indented};
        let pretty = "application/json;pretty=1";
        for (accept, query, agent, expected) in [
            ("", "", "", Compact),
            ("", "", "kubectl/v1.33.1", Compact),
            ("", "", "curl/8.0", Indented),
            ("", "", "Wget/1.21", Indented),
            ("", "", "Mozilla/5.0 (X11)", Indented),
            ("", "", "Mozilla/4.0", Compact),
            ("", "pretty=true", "", Indented),
            ("", "pretty=1", "", Indented),
            ("", "pretty=T", "", Indented),
            ("", "pretty=yes", "curl/8.0", Compact),
            ("", "pretty=false", "curl/8.0", Compact),
            ("", "pretty=", "curl/8.0", Indented),
            ("", "pretty", "", Compact),
            (pretty, "", "", Indented),
            ("application/json;pretty=0", "", "", Compact),
            (pretty, "pretty=false", "", Indented),
        ] {
            let accepted = negotiate(accept, Endpoint::Objects).expect(accept);
            assert_eq!(layout(accepted, query, agent), expected, "{accept} {query} {agent}");
            assert_eq!(error_layout(accept, query, agent), expected, "{accept} {query} {agent}");
        }
        assert_eq!(error_layout("text/plain", "", ""), Indented);
        assert_eq!(error_layout("application/vnd.kubernetes.protobuf", "", ""), Compact);
    }

    #[test]
    fn request_bodies() {
        for (content_type, expected) in [
            ("", Some(MediaType::Json)),
            ("application/json", Some(MediaType::Json)),
            ("application/json; charset=utf-8", Some(MediaType::Json)),
            ("application/yaml", Some(MediaType::Yaml)),
            ("application/vnd.kubernetes.protobuf", Some(MediaType::Protobuf)),
            ("text/plain", None),
        ] {
            assert_eq!(request_body(content_type).ok(), expected, "{content_type}");
        }
        let error = request_body("text/plain").expect_err("refused");
        assert_eq!((error.code, error.reason), (415, Reason::UnsupportedMediaType));
        assert_eq!(
            error.message,
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
    }

    proptest! {
        #[test]
        fn no_header_is_fatal(accept in "[ -~]*") {
            for endpoint in [Endpoint::Objects, Endpoint::Plain, Endpoint::Watch, Endpoint::Log] {
                let _ = negotiate(&accept, endpoint);
            }
        }
    }
}
