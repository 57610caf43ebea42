//! Stock kubectl.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Every `kubectl` and `kubectl.<release>` that there is: in the build's `tools`, in PATH, or beside the real one there.
pub(crate) fn all() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = tools().into_iter().collect();
    for folder in std::env::var_os("PATH").iter().flat_map(std::env::split_paths) {
        let real = folder.join("kubectl").canonicalize().ok();
        let beside = real.as_deref().and_then(Path::parent).map(Path::to_owned);
        let entries =
            [Some(folder), beside].into_iter().flatten().filter_map(|folder| std::fs::read_dir(folder).ok());
        for entry in entries.flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("kubectl.1.") {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found.dedup();
    if found.is_empty() {
        eprintln!("SKIPPED: there is no kubectl. Run .ci/kubectl, or have kubectl.<release> in PATH.");
    }
    found
}

/// The one that most tests use.
pub(crate) fn any() -> Option<PathBuf> {
    all().pop()
}

fn tools() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.parent()?;
    Some(here.join("target/tools/kubectl")).filter(|path| path.is_file())
}

/// Exit code, and both outputs, of one command; its words are separated by blanks.
pub(crate) fn run(kubectl: &Path, kubeconfig: &Path, command: &str) -> (i32, String) {
    let Output { status, stdout, stderr } = Command::new(kubectl)
        .args(command.split(' '))
        .env_clear()
        .env("HOME", kubeconfig.parent().unwrap())
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap();
    let text = [stdout, stderr].concat();
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}
