//! Names of images (`github.com/distribution/reference`): what is no name is not worth a pull.

use std::borrow::Cow;

/// The longest repository name, its server included.
const MAX_BYTES: usize = 255;

/// Why a text cannot name an image; caused by the pod's author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAName {
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Id(String),
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("invalid reference format")]
    Format,
    #[error("repository name must not be more than {MAX_BYTES} characters")]
    Long,
}

/// Whether `image`, `[server[:port]/]path[:tag][@digest]`, is a name.
pub(super) fn check(image: &str) -> Result<(), NotAName> {
    if image.len() == 64 && image.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(NotAName::Id(image.to_owned()));
    }
    let (server, rest) = split_server(image);
    let repository = rest.split(':').next().unwrap_or_default();
    if repository.to_lowercase() != repository {
        return Err(NotAName::Uppercase(repository.to_owned()));
    }
    let (named, digest) =
        rest.split_once('@').map_or((&*rest, None), |(named, digest)| (named, Some(digest)));
    let (path, tag) = named.split_once(':').map_or((named, None), |(path, tag)| (path, Some(tag)));
    let is_name = is_server(server)
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    if !is_name {
        return Err(NotAName::Format);
    }
    if server.len() + 1 + path.len() > MAX_BYTES {
        return Err(NotAName::Long);
    }
    Ok(())
}

/// The server, which is Docker's unless the first part looks like one, and what is behind it.
fn split_server(image: &str) -> (&str, Cow<'_, str>) {
    const USUAL: &str = "docker.io";
    let is_one =
        |first: &str| first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first;
    let (server, rest) = match image.split_once('/') {
        Some((first, rest)) if is_one(first) => (first, rest),
        _ => (USUAL, image),
    };
    let server = if server == "index.docker.io" { USUAL } else { server };
    if server == USUAL && !rest.contains('/') {
        return (server, format!("library/{rest}").into());
    }
    (server, rest.into())
}

fn is_server(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_, "")) => (text, None),
        Some((_, port)) => {
            (&text[..text.len() - port.len()], Some(port.strip_prefix(':').unwrap_or_default()))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_port = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    is_port && (is_bracketed(host) || host.split('.').all(is_label))
}

fn is_bracketed(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'))
}

fn is_label(label: &str) -> bool {
    let is_framed = !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    is_framed && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Lower-case words, between them a dot, one or two underscores, or dashes.
fn is_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = component.split(|c: char| c.is_ascii() && is_word(c as u8));
    let is_separator = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    let ends = [component.bytes().next(), component.bytes().last()];
    ends.into_iter().all(|end| end.is_some_and(is_word)) && separators.into_iter().all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = tag.bytes().next();
    first.is_some_and(is_word)
        && tag.len() <= 128
        && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let mut parts = algorithm.split(['-', '_', '+', '.']);
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    parts.all(is_part) && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let hex = "0123456789abcdef".repeat(4);
        let check = |image: &str, expected: Result<(), &str>| {
            assert_eq!(
                check(image).map_err(|error| error.to_string()),
                expected.map_err(str::to_owned),
                "{image}"
            );
        };
        for good in [
            "busybox",
            "busybox:latest",
            "library/busybox:1.36",
            "localhost/test:1",
            "localhost:5000/a/b__c/d.e/f---g:V_1.0-x",
            "[::1]:5000/a:1",
            "[::1]/a",
            "Registry.example.com/a",
            "127.0.0.1:1/no/such:1",
            &format!("a/b:1@sha256:{hex}"),
            &format!("a@sha256:{hex}"),
        ] {
            check(good, Ok(()));
        }
        let format = "invalid reference format";
        for bad in [
            "a b",
            "a:",
            "a:b:c",
            ":tag",
            "/a",
            "a/",
            "a//b",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a._b",
            "a:-x",
            "a@sha256:12",
            "a@b",
            "a@",
            "http://example.com/a",
            "é",
            "-x.io/a",
            "x.io:/a",
            "x.io:p/a",
            "[::1/a.b",
            "[]:1/a",
        ] {
            check(bad, Err(format));
        }
        check("Foo", Err("invalid reference format: repository name (library/Foo) must be lowercase"));
        check("a/Foo:X", Err("invalid reference format: repository name (a/Foo) must be lowercase"));
        check(
            &hex,
            Err(&format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings")),
        );
        check(
            &format!("x.io/{}", "a".repeat(300)),
            Err("repository name must not be more than 255 characters"),
        );
    }
}
