//! Every measurement runs to its end and has something to say; what it says is not judged here.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The program that is measured, beside the one that measures.
fn build_capture() {
    let bench = Path::new(env!("CARGO_BIN_EXE_podlog-bench"));
    if !bench.with_file_name("podlog-capture").exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--offline", "--locked", "--package", "podlog-capture"]);
        cargo.args((!cfg!(debug_assertions)).then_some("--release"));
        assert!(cargo.status().expect("cargo").success());
    }
}

fn rows(question: &str) -> Vec<serde_json::Value> {
    let directory: PathBuf = env!("CARGO_TARGET_TMPDIR").into();
    let output = Command::new(env!("CARGO_BIN_EXE_podlog-bench"))
        .args(["--quick", "--json", "--rounds=1", question, "--dir"])
        .arg(directory)
        .output()
        .expect("podlog-bench");
    assert!(output.status.success(), "{question}: {}", String::from_utf8_lossy(&output.stderr));
    let rows = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    rows.collect::<Result<_, _>>().expect("rows")
}

#[test]
fn every_question_has_an_answer() {
    build_capture();
    for (question, expected) in [
        ("read", 16),
        ("sink", 2),
        ("capture", 4),
        ("latency", 4),
        ("followers", 3),
        ("https", 6),
        ("memory", 2),
        ("relay", 3),
        ("kubelet", 5),
        ("api", 10),
        ("watches", 2),
        ("access", 2),
        ("disk", 8),
        ("torture", 9),
    ] {
        let rows = rows(question);
        // conmon, where it is installed, adds some.
        assert!(rows.len() >= expected, "{question}: {} rows", rows.len());
        for row in rows {
            let is_number = row["value"].as_f64().is_some_and(f64::is_finite);
            assert!(is_number && row["group"] == question, "{row}");
        }
    }
}
