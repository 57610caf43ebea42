//! Which files a pod declares as logs.

use k8s_openapi::api::core::v1::Pod;

use crate::go;

/// Paths, separated by commas or white space; `*` stands for anything but a slash. For all containers of the pod, and with
/// `.<container>` behind it for that one.
const ANNOTATION: &str = "podlog.dev/log-files";
/// Bytes of a path.
const MAX_PATH: usize = 4095;

/// What a pod says about a container.
pub(super) struct Declared(Vec<String>);

impl Declared {
    /// # Errors
    /// What is wrong with the annotation.
    pub(super) fn of(pod: &Pod, container: &str) -> Result<Self, String> {
        let annotations = pod.metadata.annotations.iter().flatten();
        let own = format!("{ANNOTATION}.{container}");
        let values =
            annotations.filter(|(key, _)| **key == own || *key == ANNOTATION).map(|(_, value)| value);
        let split = |value: &String| -> Vec<String> {
            let paths = value.split(|c: char| c == ',' || c.is_whitespace());
            paths.filter(|path| !path.is_empty()).map(str::to_owned).collect()
        };
        let patterns: Vec<String> = values.flat_map(split).collect();
        match patterns.iter().find(|pattern| !is_normal(pattern)) {
            Some(wrong) => Err(format!(
                "annotation {ANNOTATION}: {} is no absolute path without . and ..",
                go::quote(wrong)
            )),
            None => Ok(Declared(patterns)),
        }
    }

    /// # Errors
    /// That the file is not declared.
    pub(super) fn check(&self, container: &str, path: &str) -> Result<(), String> {
        if is_normal(path) && self.0.iter().any(|pattern| matches(pattern.as_bytes(), path.as_bytes())) {
            return Ok(());
        }
        let (path, container) = (go::quote(path), go::quote(container));
        Err(match self.0.as_slice() {
            [] => format!("the pod declares no log files of container {container} (annotation {ANNOTATION})"),
            patterns => format!(
                "file {path} of container {container} is not declared; declared are {}",
                patterns.join(", ")
            ),
        })
    }
}

fn is_normal(path: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    path.len() <= MAX_PATH
        && !path.contains('\0')
        && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_part))
}

/// Whether the whole path fits; in time proportional to the product of both lengths at worst.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut retry: Option<(usize, usize)> = None;
    while position < path.len() {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at + 1, position));
            at += 1;
        } else if pattern.get(at) == Some(&path[position]) {
            at += 1;
            position += 1;
        } else if let Some((after_star, taken)) = retry.filter(|(_, taken)| path[*taken] != b'/') {
            retry = Some((after_star, taken + 1));
            (at, position) = (after_star, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn declared(annotations: &[(&str, &str)]) -> Result<Declared, String> {
        let mut pod = Pod::default();
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        pod.metadata.annotations = Some(BTreeMap::from_iter(annotations));
        Declared::of(&pod, "c")
    }

    #[test]
    fn stars_stop_at_slashes() {
        for (pattern, path, expected) in [
            ("/a/b.log", "/a/b.log", true),
            ("/a/b.log", "/a/b.log2", false),
            ("/a/*.log", "/a/b.log", true),
            ("/a/*.log", "/a/.log", true),
            ("/a/*.log", "/a/b.log.log", true),
            ("/a/*.log", "/a/b/c.log", false),
            ("/*/*", "/a/b", true),
            ("/*/*", "/a", false),
            ("/*/*", "/a/b/c", false),
            ("/a/*", "/a/b", true),
            ("/a*c*e", "/abcde", true),
            ("/a*c*e", "/abcd", false),
            ("/a/**", "/a/b", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn only_what_is_declared_is_read() {
        let both = [(ANNOTATION, "/a/x.log, /b/*.log"), ("podlog.dev/log-files.c", "/own")];
        for (path, is_declared) in [
            ("/a/x.log", true),
            ("/b/y.log", true),
            ("/own", true),
            ("/a/y.log", false),
            ("/b/../etc/y.log", false),
            ("/b/./y.log", false),
            ("//own", false),
            ("own", false),
            ("/own/", false),
            ("/b/\0.log", false),
            ("", false),
        ] {
            assert_eq!(declared(&both).unwrap().check("c", path).is_ok(), is_declared, "{path:?}");
        }
        let other = declared(&[("podlog.dev/log-files.d", "/own")]).unwrap().check("c", "/own").unwrap_err();
        assert_eq!(
            other,
            "the pod declares no log files of container \"c\" (annotation podlog.dev/log-files)"
        );
        let wrong = declared(&[(ANNOTATION, "/a/../b")]).err();
        assert_eq!(
            wrong.as_deref(),
            Some("annotation podlog.dev/log-files: \"/a/../b\" is no absolute path without . and ..")
        );
    }
}
