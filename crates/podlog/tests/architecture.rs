//! Holds `ARCHITECTURE.md` true: the edges between crates, and what each crate must not know; and `docs/compat/`: the tests
//! that it names exist.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The table of crates: name → (level, crates it may use).
fn documented() -> BTreeMap<String, (u32, BTreeSet<String>)> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let level: u32 = cells.first()?.parse().ok()?;
        let may_use = cells.get(2)?.split(", ").filter(|name| !name.is_empty());
        Some((cells[1].to_owned(), (level, may_use.map(|name| format!("podlog-{name}")).collect())))
    });
    rows.collect()
}

/// `cargo metadata` of the workspace's own crates.
fn packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array_mut().map(std::mem::take).unwrap()
}

/// The crates of the workspace and the crates of it that each uses, tests left out.
fn actual() -> BTreeMap<String, BTreeSet<String>> {
    let packages = packages();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    let edges = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies
            .filter(|d| d["kind"].as_str() != Some("dev"))
            .map(name)
            .filter(|d| members.contains(d))
            .collect()
    };
    packages.iter().map(|package| (name(package), edges(package))).collect()
}

#[test]
fn the_table_of_crates_is_the_workspace() {
    let documented = documented();
    let actual = actual();
    assert_eq!(documented.keys().collect::<Vec<_>>(), actual.keys().collect::<Vec<_>>());
    for (name, uses) in &actual {
        let (level, may_use) = &documented[name];
        for used in uses {
            let below = documented[used].0;
            assert!(below < *level, "{name} (level {level}) uses {used} (level {below})");
            // The binary may use everything; its row says so in words.
            assert!(
                *level == 3 || may_use.contains(used),
                "{name} uses {used}, which its row does not allow"
            );
        }
    }
}

#[test]
fn every_dependency_is_used() {
    let declared = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let declared = declared.split("[workspace.dependencies]").nth(1).unwrap();
    let declared = declared.split("\n[").next().unwrap().lines().filter_map(|line| line.split_once(" = "));
    let mut unused: BTreeSet<String> = declared.map(|(name, _)| name.to_owned()).collect();
    for package in packages() {
        let folder_of =
            |file: &serde_json::Value| Path::new(file.as_str().unwrap()).parent().unwrap().to_owned();
        // The tests of the whole way lie outside of the crate that they belong to.
        let mut folders = BTreeSet::from([folder_of(&package["manifest_path"])]);
        folders.extend(package["targets"].as_array().unwrap().iter().map(|t| folder_of(&t["src_path"])));
        let files = folders.into_iter().flat_map(rust_files);
        let sources: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            unused.remove(name);
            assert!(sources.contains(&name.replace('-', "_")), "{} does not use {name}", package["name"]);
        }
    }
    assert!(unused.is_empty(), "no crate depends on {unused:?}");
}

/// All Rust files below a folder.
fn rust_files(folder: PathBuf) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn folder_of(name: &str) -> PathBuf {
    let package = packages().into_iter().find(|package| package["name"] == name).unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

/// Every line of a crate's sources outside comments and the tests at the end of a file, as `path:line: text`.
fn code_lines(name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let files = rust_files(folder_of(name).join("src"));
    for path in files.iter().filter(|path| !path.ends_with("tests.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let is_code = |line: &str| !line.trim_start().starts_with("//");
        let numbered = code.lines().enumerate().filter(|(_, line)| is_code(line));
        lines.extend(numbered.map(|(at, line)| format!("{}:{}: {line}", path.display(), at + 1)));
    }
    lines
}

fn assert_never_says(name: &str, words: &[&str]) {
    for line in code_lines(name) {
        let text = line.split_once(": ").map_or("", |(_, text)| text);
        for word in words {
            assert!(!text.contains(word), "{name} must not know `{word}`: {line}");
        }
    }
}

#[test]
fn the_pure_crates_touch_nothing_outside() {
    let outside = [
        "tokio",
        "std::fs",
        "std::net",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "std::env",
        "std::process",
    ];
    assert_never_says("podlog-line", &outside);
    assert_never_says("podlog-api", &outside);
}

#[test]
fn only_serving_names_rustls() {
    for name in actual().keys().filter(|name| *name != "podlog-serving") {
        assert_never_says(name, &["rustls::", "use rustls", "tokio_rustls"]);
    }
}

#[test]
fn only_serving_makes_a_permit() {
    for name in actual().keys().filter(|name| *name != "podlog-serving") {
        assert_never_says(name, &["Permit {"]);
    }
}

#[test]
fn the_api_server_knows_no_log_line() {
    assert_never_says("podlog-apiserver", &["podlog_line", "podlog_driver"]);
    assert_never_says("podlog-serving", &["podlog_line", "podlog_driver"]);
}

#[test]
fn every_test_that_compat_names_exists() {
    let sources: String = ["crates", "tests", "bench", "fuzz"]
        .into_iter()
        .flat_map(|folder| rust_files(root().join(folder)))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let mut named = 0;
    for entry in std::fs::read_dir(root().join("docs/compat")).unwrap() {
        let path = entry.unwrap().path();
        for row in std::fs::read_to_string(&path).unwrap().lines().filter(|line| line.starts_with('|')) {
            // Between backticks; tests have names of several words, and so have metrics.
            let words = row.split('`').skip(1).step_by(2);
            let is_test = |word: &&str| {
                !word.starts_with("podlog_")
                    && word.matches('_').count() > 1
                    && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            };
            for test in words.filter(is_test) {
                named += 1;
                assert!(sources.contains(&format!("fn {test}(")), "{}: no test {test}", path.display());
            }
        }
    }
    assert!(named > 100, "only {named} tests are named");
}
