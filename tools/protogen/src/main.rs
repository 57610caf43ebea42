//! `cargo run --manifest-path tools/protogen/Cargo.toml`: writes `crates/podlog-proto/src/<name>/mod.rs` anew from
//! `crates/podlog-proto/proto/<name>.proto`.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Each protocol: the file `proto/<name>.proto`, the module `<name>`, the protocol's own package, and whether podlog serves
/// it too.
const PROTOCOLS: &[(&str, &str, Ends)] = &[
    ("cri", "runtime.v1", Ends::Both),
    ("etcd", "etcdserverpb", Ends::Client),
    ("health", "grpc.health.v1", Ends::Both),
];

/// Which ends of a protocol are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Client,
    Both,
}

fn main() -> anyhow::Result<()> {
    for (name, package, ends) in PROTOCOLS {
        let generated = generate(name, package, *ends)?;
        let path = module(name);
        std::fs::create_dir_all(path.parent().context("a module lies in a folder")?)?;
        std::fs::write(&path, generated).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn crate_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/podlog-proto")
}

fn module(name: &str) -> PathBuf {
    crate_folder().join("src").join(name).join("mod.rs")
}

/// The module's text.
fn generate(name: &str, package: &str, ends: Ends) -> anyhow::Result<String> {
    let folder = crate_folder().join("proto");
    let descriptors = protox::compile([format!("{name}.proto")], [&folder])?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .build_server(ends == Ends::Both)
        // Values are slices of the message that carried them, not copies.
        .bytes(".")
        .out_dir(out.path())
        .compile_fds(descriptors)?;
    Ok(std::fs::read_to_string(out.path().join(format!("{package}.rs")))?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_committed_is_what_would_be_generated() {
        for (name, package, ends) in super::PROTOCOLS {
            let committed = std::fs::read_to_string(super::module(name)).unwrap();
            assert_eq!(committed, super::generate(name, package, *ends).unwrap(), "{name}: run tools/protogen");
        }
    }
}
