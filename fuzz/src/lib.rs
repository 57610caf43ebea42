//! What is fuzzed: every parser of bytes from outside, and the reader over whatever may lie in a log directory.
//!
//! A target takes any bytes, panics when something is wrong, and returns how it went: a number that differs when the code
//! under test went another way, as far as its answer tells. The runner keeps inputs that go a new way and mutates them on.
//! The functions can be called from a libFuzzer harness as they are.

mod access;
mod journal;
pub mod mutate;
mod parsers;
mod reader;
mod server;
mod sockets;

/// Something to fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its folder in the corpus, too.
    pub name: &'static str,
    /// Judges an input; panics when something is wrong. Returns how it went.
    pub run: fn(&[u8]) -> u64,
    /// Words that its inputs are made of.
    pub dictionary: &'static [&'static str],
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "record", run: parsers::record, dictionary: RECORD },
    Target { name: "timestamp", run: parsers::timestamp, dictionary: RECORD },
    Target { name: "quote", run: parsers::quote, dictionary: RECORD },
    Target { name: "gap", run: parsers::gap, dictionary: GAP },
    Target { name: "cursor", run: parsers::cursor, dictionary: CURSOR },
    Target { name: "control", run: parsers::control, dictionary: CONTROL },
    Target { name: "log-options", run: parsers::log_options, dictionary: LOG_OPTIONS },
    Target { name: "request", run: parsers::request, dictionary: LOG_OPTIONS },
    Target { name: "protobuf", run: parsers::protobuf, dictionary: OBJECT },
    Target { name: "json", run: parsers::json, dictionary: OBJECT },
    Target { name: "yaml", run: parsers::yaml, dictionary: OBJECT },
    Target { name: "accept", run: sockets::accept, dictionary: ACCEPT },
    Target { name: "websocket", run: sockets::websocket, dictionary: WEBSOCKET },
    Target { name: "spdy", run: sockets::spdy, dictionary: SPDY },
    Target { name: "renderer", run: reader::renderer, dictionary: RECORD },
    Target { name: "generations", run: reader::generations, dictionary: RECORD },
    Target { name: "bearer", run: access::bearer, dictionary: BEARER },
    Target { name: "certificate", run: access::certificate, dictionary: CERTIFICATE },
    Target { name: "certificate-request", run: access::certificate_request, dictionary: CERTIFICATE },
    Target { name: "roles", run: access::roles, dictionary: ROLES },
    Target { name: "audit-policy", run: server::audit_policy, dictionary: AUDIT_POLICY },
    Target { name: "bootstrap-token", run: server::bootstrap_token, dictionary: BOOTSTRAP_TOKEN },
    Target { name: "oidc", run: server::oidc, dictionary: OIDC },
    Target { name: "request-header", run: server::request_header, dictionary: REQUEST_HEADER },
    Target { name: "webhook-file", run: server::webhook_file, dictionary: WEBHOOK_FILE },
    Target { name: "stored", run: server::stored, dictionary: OBJECT },
    Target { name: "attributes", run: reader::attributes, dictionary: ATTRIBUTES },
    Target { name: "journal", run: journal::journal, dictionary: JOURNAL },
];

const AUDIT_POLICY: &[&str] = &[
    "- {level: RequestResponse}\n",
    "level: ",
    "None",
    "Metadata",
    "omitStages: [RequestReceived]",
    "resources: [{group: '', resources: ['*/log']}]",
    "nonResourceURLs: ['/healthz*']",
    "users: [ann]",
    "userGroups: [devs]",
    "verbs: [get]",
    "namespaces: ['']",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "\n  ",
];
const BOOTSTRAP_TOKEN: &[&str] = &[
    r#""type":"bootstrap.kubernetes.io/token""#,
    r#""token-id":"YWJjZGVm""#,
    r#""token-secret":"MDEyMzQ1Njc4OWFiY2RlZg==""#,
    r#""usage-bootstrap-authentication":"dHJ1ZQ==""#,
    r#""expiration":"MjAyNi0wMS0wMVQwMDowMDowMVo=""#,
    r#""auth-extra-groups":"c3lzdGVtOmJvb3RzdHJhcHBlcnM6YQ==""#,
    r#""data":{"#,
    r#""metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}"#,
    "null",
    ",",
];
const OIDC: &[&str] = &[
    r#""issuer":"https://i.test""#,
    r#""jwks_uri":"https://i.test/keys""#,
    r#""iss":"https://i.test""#,
    r#""aud":"podlog""#,
    r#""aud":["podlog"]"#,
    r#""exp":1767225601"#,
    r#""nbf":1767225600"#,
    r#""sub":"ann""#,
    r#""groups":["a"]"#,
    r#""email_verified":false"#,
    r#""keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"k"}]"#,
    "1e308",
    "-9223372036854775808",
    ",",
];
const REQUEST_HEADER: &[&str] = &[
    "X-Remote-User: ann\n",
    "x-remote-group:a\n",
    "X-Remote-Uid: 7\n",
    "X-Remote-Extra-Example.com%2fscope: s\n",
    "X-Remote-Extra-",
    "%",
    "%ff",
    ":",
];
const WEBHOOK_FILE: &[&str] = &[
    "clusters: [{name: c, cluster: {server: 'https://h:1/p'}}]\n",
    "users: [{name: u, user: {token: t}}]\n",
    "contexts: [{name: x, context: {cluster: c, user: u}}]\n",
    "current-context: x\n",
    "tokenFile: /t",
    "client-key: k",
    "insecure-skip-tls-verify: true",
    "certificate-authority-data: AA==",
    "http://",
    "[::1]",
    "@",
];

const BEARER: &[&str] = &["Bearer ", "bearer", "Basic ", " ", "\t", "a.b.c", "="];
const CERTIFICATE: &[&str] = &[
    "-----BEGIN CERTIFICATE-----\n",
    "-----END CERTIFICATE-----\n",
    "-----BEGIN CERTIFICATE REQUEST-----\n",
    "MIIB",
    "\x30\x03",
    "\x02\x01\x00",
    "\x06\x03U\x04\x03",
    "\x0c\x02ab",
    "\x31\x00",
];
const ROLES: &[&str] = &[
    r#"{"kind":"ClusterRole","metadata":{"name":"r"},"rules":["#,
    r#"{"kind":"ClusterRoleBinding","metadata":{"name":"b"},"roleRef":{"kind":"ClusterRole","name":"r"},"subjects":["#,
    r#"{"kind":"User","name":"ann"}"#,
    r#"{"kind":"Group","name":"devs"}"#,
    r#"{"verbs":["*"],"apiGroups":[""],"resources":["pods/log"]}"#,
    r#""resourceNames":["web"]"#,
    r#""nonResourceURLs":["/x*"]"#,
    "*",
    "*/log",
    ",",
    "]",
    "}",
];

const RECORD: &[&str] = &[
    "2026-01-01T00:00:00.000000001Z stdout F a\n",
    "2026-01-01T00:00:01.5+02:00 stderr P b\n",
    "2026-01-01T00:00:00Z",
    " stdout ",
    " stderr ",
    " F ",
    " P ",
    "F:x",
    "\n",
    "\0\0\0\0",
    r#"{"log":"a\n","stream":"stdout","time":"2026-01-01T00:00:00.1Z"}"#,
    r#"{"log":""#,
    r#"","stream":"stderr","time":""#,
    "\\u003c",
    "\\ud83d\\ude00",
];
const GAP: &[&str] = &[
    r#"{"podlog.gap":{"#,
    r#""reason":"retention""#,
    r#""stream":"stdout""#,
    r#""lines":"#,
    r#""bytes":18446744073709551615"#,
    r#""from":"2026-01-01T00:00:01Z""#,
    ",",
    "}}",
];
const CURSOR: &[&str] = &["c1.", ".", "-", "x", "y", "z", "0", "fvvvvvvvvvvvv"];
const CONTROL: &[&str] =
    &["status", "reopen", "signal ", "15", "exec ", r#"{"argv":["sh"]}"#, "ok ", "error ", "exited ", "-1"];
const LOG_OPTIONS: &[&str] = &[
    "tailLines=",
    "sinceSeconds=",
    "sinceTime=",
    "limitBytes=",
    "follow=",
    "previous=",
    "timestamps=",
    "container=",
    "stream=",
    "untilTime=",
    "untilSeconds=",
    "match=",
    "exclude=",
    "fixedStrings=",
    "cursors=",
    "cursor=",
    "frames=",
    "allInstances=",
    "true",
    "-1",
    "9223372036854775807",
    "2026-01-01T00:00:00Z",
    "&",
    "%00",
    "%zz",
    "+",
    "/api/v1/namespaces/default/pods/web/log",
    "/apis/apps/v1/",
    "?",
    "..",
    "//",
];
const OBJECT: &[&str] = &[
    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#,
    "apiVersion: v1\nkind: Pod\n",
    "k8s\0",
    "\n\x0f\n\x02v1\x12\x03Pod",
    "metadata",
    "null",
    "1e999",
    "\"\\ud800\"",
    "- ",
    ": ",
    "<<: *a",
    "&a ",
    "0755",
    "[",
    "{",
    "]",
    "}",
    "!!binary",
    "|\n",
    "\t",
];
const ACCEPT: &[&str] = &[
    "application/json",
    "application/vnd.podlog.log",
    "application/vnd.kubernetes.protobuf",
    ";as=Table;v=v1;g=meta.k8s.io",
    ";stream=watch",
    ";q=0.",
    "*/*",
    ",",
    "zstd",
    "gzip",
];
/// Heads of frames: a flag that it is the last, an operation, a mask, lengths (RFC 6455, 5.2).
const WEBSOCKET: &[&str] = &[
    "\u{1}\u{0}",
    "\u{2}\u{0}",
    "\u{9}\u{0}",
    "\u{8}\u{2}\u{3}",
    "\u{0}\u{7e}",
    "\u{0}\u{7f}\u{0}\u{0}\u{0}\u{0}",
    "mask",
];
/// Parts of frames: kinds, flags, lengths, streams. A frame that is not data begins with a byte that is no text.
const SPDY: &[&str] = &[
    "\u{3}\0\u{1}\u{1}\0\0",
    "\u{3}\0\u{3}\0\0\0\u{8}",
    "\u{3}\0\u{6}\0\0\0\u{4}\0\0\0\u{1}",
    "\u{3}\0\u{7}",
    "\0\0\0\u{1}\0\0\0\u{5}hello",
    "\0\0\0\u{3}\u{1}\0\0\0",
    "\0\u{1}\0\0",
    "streamtype",
];
/// Signature, fields, and numbers in the order of bytes that journals have.
const JOURNAL: &[&str] = &[
    "LPKSHHRH",
    "CONTAINER_ID_FULL=c0ffee",
    "MESSAGE=",
    "_UID=0",
    "PRIORITY=3",
    "CONTAINER_PARTIAL_MESSAGE=true",
    "\0\0\0\0\0\0\0\0",
    "\u{10}\u{1}\0\0\0\0\0\0",
    "\u{1}\0\0\0\0\0\0\0",
    "\u{6}\0\0\0\0\0\0\0",
    "\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}",
];
const ATTRIBUTES: &[&str] = &[
    "user.podlog.end",
    "user.podlog.base",
    "user.podlog.generation",
    " PF",
    " FF",
    "18446744073709551615",
    "-1",
    "0",
];
