//! Objects from files, folders and standard input.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use podlog_api::Object;
use serde_json::{Map, Value};

/// Bytes of one file.
const MAX_FILE: u64 = 64 << 20;
/// What files of a folder are read.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// An object, and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The object.
    pub object: Object,
    /// The file, `STDIN` for standard input.
    pub origin: String,
}

/// Why manifests cannot be read. `Display` is the whole text for stderr.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is no such file or folder.
    #[error("error: the path {path:?} does not exist")]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// A folder holds no manifest.
    #[error("error: error reading [{}]: recognized file extensions are [.json .yaml .yml]", .path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder cannot be read.
    #[error("error: cannot read {origin}: {source}")]
    Read {
        /// The file.
        origin: String,
        /// Why.
        source: io::Error,
    },
    /// A document is not what it should be.
    #[error("error: error parsing {origin}, document {document}: {reason}")]
    Content {
        /// The file.
        origin: String,
        /// Its place in the file, from 1.
        document: usize,
        /// What is wrong with it, with the line in the file where that is known.
        reason: String,
    },
}

/// Reads manifests in the order given: files, folders (their `*.json`, `*.yaml` and `*.yml`, not deeper, by name) and `-` for
/// `stdin`. Documents are YAML 1.1 or JSON; lists are taken apart; empty documents are left out.
///
/// # Errors
/// When something cannot be read, is not YAML or JSON, or is not an object with `apiVersion` and `kind`.
pub fn read(paths: &[PathBuf], stdin: &mut dyn Read) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            parse("STDIN", &read_text("STDIN", stdin)?, &mut manifests)?;
            continue;
        }
        for file in files(path)? {
            let origin = file.display().to_string();
            let mut opened = std::fs::File::open(&file)
                .map_err(|source| ManifestError::Read { origin: origin.clone(), source })?;
            parse(&origin, &read_text(&origin, &mut opened)?, &mut manifests)?;
        }
    }
    Ok(manifests)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let refused = |source| ManifestError::Read { origin: path.display().to_string(), source };
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ManifestError::Missing { path: path.to_owned() });
        }
        metadata => metadata.map_err(refused)?,
    };
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries: Vec<PathBuf> = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|e| Ok(e?.path())).collect())
        .map_err(refused)?;
    let mut found: Vec<PathBuf> = entries.into_iter().filter(|file| is_manifest(file)).collect();
    found.sort();
    if found.is_empty() { Err(ManifestError::Empty { path: path.to_owned() }) } else { Ok(found) }
}

fn is_manifest(file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.contains(&extension) && file.is_file()
}

fn read_text(origin: &str, source: &mut dyn Read) -> Result<String, ManifestError> {
    let refused = |source| ManifestError::Read { origin: origin.into(), source };
    let mut bytes = Vec::new();
    source.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(refused)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(refused(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 MiB")));
    }
    String::from_utf8(bytes).map_err(|_| refused(io::Error::new(io::ErrorKind::InvalidData, "not UTF-8")))
}

fn parse(origin: &str, text: &str, manifests: &mut Vec<Manifest>) -> Result<(), ManifestError> {
    let wrong =
        |document: usize, reason: String| ManifestError::Content { origin: origin.into(), document, reason };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (document, value) in (1..).zip(documents(text)) {
        let value = value.map_err(|reason| wrong(document, reason))?;
        for object in objects(value).map_err(|reason| wrong(document, reason))? {
            manifests.push(Manifest { object, origin: origin.to_owned() });
        }
    }
    Ok(())
}

/// Every document with content, as JSON.
fn documents(text: &str) -> Vec<Result<Value, String>> {
    if text.trim_start().starts_with('{') {
        let json: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        if let Ok(values) = json {
            return values.into_iter().map(Ok).collect();
        }
    }
    split(text).iter().filter(|document| has_content(document)).map(|document| from_yaml(document)).collect()
}

/// Documents begin with `---` at the begin of a line, wherever that is. Each keeps as many empty lines before it as the file
/// has lines there, so that errors name the line in the file.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) {
            documents.push("\n".repeat(number));
        }
        if let Some(document) = documents.last_mut() {
            document.push_str(line);
        }
    }
    documents
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(document: &str) -> bool {
    document.lines().any(|line| {
        let line = if is_separator(line) { &line[3..] } else { line };
        let line = line.trim();
        !line.is_empty() && !line.starts_with(['#', '%']) && line != "..."
    })
}

/// YAML 1.1 as `sigs.k8s.io/yaml` reads it; a key given twice is an error.
fn from_yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: 5_000_000,
            max_events: 20_000_000,
            max_total_scalar_bytes: 256 * 1024 * 1024,
            max_depth: 1_000,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// The object, or the objects of a list.
fn objects(value: Value) -> Result<Vec<Object>, String> {
    let Value::Object(map) = value else {
        return if value.is_null() { Ok(Vec::new()) } else { Err("not an object".into()) };
    };
    let kind = text_of(&map, "kind")?;
    let api_version = text_of(&map, "apiVersion")?;
    let item_kind = kind.strip_suffix("List").filter(|_| map.get("items").is_some_and(Value::is_array));
    let Some(item_kind) = item_kind.map(str::to_owned) else {
        return Ok(vec![Object(Value::Object(map))]);
    };
    let items = match map.into_iter().find(|(key, _)| key == "items") {
        Some((_, Value::Array(items))) => items,
        _ => Vec::new(),
    };
    let typed = items.into_iter().map(|item| with_type(item, &api_version, &item_kind));
    Ok(typed.map(objects).collect::<Result<Vec<_>, _>>()?.concat())
}

/// Items of a typed list, such as a `PodList`, need not say what they are.
fn with_type(item: Value, api_version: &str, kind: &str) -> Value {
    let Value::Object(mut item) = item else { return item };
    if !kind.is_empty() {
        item.entry("apiVersion").or_insert_with(|| api_version.into());
        item.entry("kind").or_insert_with(|| kind.into());
    }
    Value::Object(item)
}

fn text_of(map: &Map<String, Value>, key: &str) -> Result<String, String> {
    match map.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        None | Some(Value::Null | Value::String(_)) => Err(format!("{key} not set")),
        Some(_) => Err(format!("{key} is not a string")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<Value>, String> {
        let mut stdin = text.as_bytes();
        read(&["-".into()], &mut stdin)
            .map(|manifests| manifests.into_iter().map(|manifest| manifest.object.0).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn documents_are_told_apart() {
        let object = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}});
        let yaml = |name: &str| format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n");
        let json_text = |name: &str| object(name).to_string();
        let rows = [
            (yaml("a"), vec!["a"]),
            (format!("---\n{}---\n{}", yaml("a"), yaml("b")), vec!["a", "b"]),
            (format!("# a comment\n---\n\n--- # nothing\n{}---\n", yaml("a")), vec!["a"]),
            (
                format!("{}--- {{apiVersion: v1, kind: Pod, metadata: {{name: b}}}}\n", yaml("a")),
                vec!["a", "b"],
            ),
            (format!("%YAML 1.1\n---\n{}...\n", yaml("a")), vec!["a"]),
            (yaml("a").replace('\n', "\r\n"), vec!["a"]),
            (format!("\u{feff}{}", yaml("a")), vec!["a"]),
            (format!("{}\n{}", json_text("a"), json_text("b")), vec!["a", "b"]),
            (json_text("a"), vec!["a"]),
            ("{apiVersion: v1, kind: Pod, metadata: {name: a}}".into(), vec!["a"]),
            (
                json!({"apiVersion": "v1", "kind": "List", "items": [object("a"), object("b")]}).to_string(),
                vec!["a", "b"],
            ),
            (
                json!({"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}}]})
                    .to_string(),
                vec!["a"],
            ),
            ("# nothing at all\n".into(), vec![]),
            ("".into(), vec![]),
            ("null\n".into(), vec![]),
        ];
        for (text, names) in rows {
            assert_eq!(parsed(&text).unwrap(), names.into_iter().map(object).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn scalars_are_yaml_1_1() {
        let text = "apiVersion: v1\nkind: X\nmode: 0644\nyes: no\n1: one\nport: 8080\nratio: 1.5\ntext: \"8080\"\ntilde: ~\n";
        let expected = json!({"apiVersion": "v1", "kind": "X", "mode": 420, "port": 8080, "ratio": 1.5, "text": "8080", "tilde": null});
        let mut found = parsed(text).unwrap().remove(0);
        let map = found.as_object_mut().unwrap();
        assert_eq!(map.remove("1"), Some(json!("one")));
        let boolean = map.remove("true").or_else(|| map.remove("yes"));
        assert_eq!(boolean, Some(json!(false)));
        assert_eq!(found, expected);
    }

    #[test]
    fn errors_name_file_document_and_line() {
        let first = "apiVersion: v1\nkind: Pod\n---\n";
        let rows = [
            (format!("{first}a: [\n"), "document 2: ", "line 4"),
            (format!("{first}kind: Pod\n"), "document 2: apiVersion not set", ""),
            (format!("{first}apiVersion: v1\n"), "document 2: kind not set", ""),
            (format!("{first}apiVersion: v1\nkind: 7\n"), "document 2: kind is not a string", ""),
            (format!("{first}- a\n"), "document 2: not an object", ""),
            (format!("{first}apiVersion: v1\nkind: Pod\nkind: Pod\n"), "document 2: ", "line 6"),
            ("{\"apiVersion\": \"v1\", \"kind\": }".into(), "document 1: ", ""),
        ];
        for (text, begin, more) in rows {
            let error = parsed(&text).unwrap_err();
            let begin = format!("error: error parsing STDIN, {begin}");
            assert!(error.starts_with(&begin) && error.contains(more), "{error}");
        }
    }

    #[test]
    fn folders_are_read_by_name_and_not_deeper() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let put = |name: &str| {
            std::fs::write(path(name), format!("apiVersion: v1\nkind: {}\n", name.split('.').next().unwrap()))
                .unwrap()
        };
        std::fs::create_dir(path("sub")).unwrap();
        ["b.yaml", "a.yml", "d.txt", "sub/e.yaml"].iter().for_each(|name| put(name));
        std::fs::write(path("c.json"), r#"{"apiVersion": "v1", "kind": "c"}"#).unwrap();
        let kinds = |paths: &[PathBuf]| {
            let found = read(paths, &mut io::empty()).map_err(|error| error.to_string())?;
            Ok::<_, String>(found.iter().map(|m| m.object.kind().to_owned()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(kinds(&[folder.path().to_owned()]).unwrap(), "a b c");
        assert_eq!(kinds(&[path("d.txt"), path("b.yaml")]).unwrap(), "d b");
        let error = kinds(&[path("nope")]).unwrap_err();
        assert_eq!(error, format!("error: the path {:?} does not exist", path("nope")));
        std::fs::create_dir(path("void")).unwrap();
        assert!(
            kinds(&[path("void")])
                .unwrap_err()
                .ends_with("recognized file extensions are [.json .yaml .yml]")
        );
    }
}
