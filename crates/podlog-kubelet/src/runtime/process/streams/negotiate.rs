//! Which protocol client and server speak.

use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use podlog_serving::websocket::{self, Framing};
use podlog_serving::{Body, empty_body, text_body};

use super::Ticket;

const STREAM_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";
const COMMANDS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];
const PORTS: &[&str] = &["portforward.k8s.io"];
/// SPDY in the messages of a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// What they go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Spdy,
    /// Channels in a WebSocket.
    Channels(Framing),
    /// SPDY in a WebSocket.
    Tunnel,
}

/// The answer, and the protocol if client and server agree on one.
pub(super) fn agree(ticket: &Ticket, headers: &HeaderMap) -> (Response<Body>, Option<Protocol>) {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if websocket::is_wanted(headers) {
        return match websocket::agree(headers, |offered| subprotocol(ticket, offered)) {
            Ok((answer, protocol)) => (answer, Some(protocol)),
            Err(refusal) => (*refusal, None),
        };
    }
    if !text(UPGRADE).eq_ignore_ascii_case(SPDY) || !text(CONNECTION).eq_ignore_ascii_case("upgrade") {
        let why = "unable to upgrade: missing upgrade headers in request";
        return (refusal(StatusCode::BAD_REQUEST, why.to_owned()), None);
    }
    let known = if matches!(ticket, Ticket::Forward { .. }) { PORTS } else { COMMANDS };
    let offered = headers.get_all(STREAM_VERSION).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|list| list.split(',')).map(str::trim).collect();
    let Some(version) = offered.iter().find(|version| known.contains(version)) else {
        return (no_common_version(&offered, known), None);
    };
    let mut answer = Response::new(empty_body());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = [(CONNECTION, "Upgrade"), (UPGRADE, SPDY), (STREAM_VERSION, version)];
    for (name, value) in fields {
        answer.headers_mut().extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
    }
    (answer, Some(Protocol::Spdy))
}

/// The first that is known of those that a client offers.
fn subprotocol(ticket: &Ticket, offered: &[&str]) -> Option<(String, Protocol)> {
    let is_forward = matches!(ticket, Ticket::Forward { .. });
    if offered.is_empty() {
        return Some((String::new(), Protocol::Channels(Framing::Binary)));
    }
    offered.iter().find_map(|name| {
        let protocol = match *name {
            TUNNEL if is_forward => Protocol::Tunnel,
            "v4.channel.k8s.io" | "" => Protocol::Channels(Framing::Binary),
            "v4.base64.channel.k8s.io" => Protocol::Channels(Framing::Base64),
            "v5.channel.k8s.io" if !is_forward => Protocol::Channels(Framing::Binary),
            _ => return None,
        };
        Some(((*name).to_owned(), protocol))
    })
}

/// As `httpstream.Handshake`.
fn no_common_version(offered: &[&str], known: &[&'static str]) -> Response<Body> {
    let (offered, all) = (offered.join(" "), known.join(" "));
    let why = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{offered}], server accepts [{all}]"
    );
    let mut answer = refusal(StatusCode::FORBIDDEN, why);
    for version in known {
        answer.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(version));
    }
    answer
}

pub(super) fn refusal(code: StatusCode, why: String) -> Response<Body> {
    let mut answer = Response::new(text_body(why));
    *answer.status_mut() = code;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        rows.iter().map(pair).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    #[test]
    fn protocols_are_agreed_on_as_upstream_does() {
        let websocket = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let spdy = [("upgrade", "SPDY/3.1"), ("connection", "Upgrade")];
        const VERSION: &str = "x-stream-protocol-version";
        const NAME: &str = "sec-websocket-protocol";
        let (commands, ports) = (false, true);
        type Row<'a> = (bool, Vec<(&'static str, &'static str)>, u16, &'a str, Option<Protocol>);
        let with = |own: &[(&'static str, &'static str)], more: &[(&'static str, &'static str)]| {
            [own, more].concat()
        };
        let rows: Vec<Row<'_>> = vec![
            (
                commands,
                with(&spdy, &[(VERSION, "v4.channel.k8s.io"), (VERSION, "v3.channel.k8s.io")]),
                101,
                "v4.channel.k8s.io",
                Some(Protocol::Spdy),
            ),
            (commands, with(&spdy, &[(VERSION, "v2.channel.k8s.io")]), 403, "", None),
            (commands, with(&spdy, &[]), 403, "", None),
            (
                ports,
                with(&spdy, &[(VERSION, "portforward.k8s.io")]),
                101,
                "portforward.k8s.io",
                Some(Protocol::Spdy),
            ),
            (ports, with(&spdy, &[(VERSION, "v4.channel.k8s.io")]), 403, "", None),
            (commands, vec![], 400, "", None),
            (commands, vec![("upgrade", "h2c"), ("connection", "Upgrade")], 400, "", None),
            (
                commands,
                with(&websocket, &[(NAME, "v5.channel.k8s.io")]),
                101,
                "v5.channel.k8s.io",
                Some(Protocol::Channels(Framing::Binary)),
            ),
            (
                commands,
                with(&websocket, &[(NAME, "x, v4.base64.channel.k8s.io")]),
                101,
                "v4.base64.channel.k8s.io",
                Some(Protocol::Channels(Framing::Base64)),
            ),
            (commands, with(&websocket, &[]), 101, "", Some(Protocol::Channels(Framing::Binary))),
            (commands, with(&websocket, &[(NAME, TUNNEL)]), 403, "", None),
            (ports, with(&websocket, &[(NAME, TUNNEL)]), 101, TUNNEL, Some(Protocol::Tunnel)),
            (ports, with(&websocket, &[(NAME, "v5.channel.k8s.io")]), 403, "", None),
            (
                ports,
                with(&websocket, &[(NAME, "v4.channel.k8s.io")]),
                101,
                "v4.channel.k8s.io",
                Some(Protocol::Channels(Framing::Binary)),
            ),
        ];
        for (is_forward, row, code, named, protocol) in rows {
            let ticket = match is_forward {
                true => Ticket::Forward { sandbox: String::new(), ports: Vec::new() },
                false => Ticket::Exec {
                    dir: podlog_container::ContainerDir::new("/"),
                    command: Vec::new(),
                    streams: Default::default(),
                },
            };
            let (answer, agreed) = agree(&ticket, &headers(&row));
            let name = [VERSION, NAME].iter().find_map(|name| answer.headers().get(*name));
            let name = name.map_or("", |value| value.to_str().unwrap());
            assert_eq!((answer.status().as_u16(), name, agreed), (code, named, protocol), "{row:?}");
        }
    }
}
