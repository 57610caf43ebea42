//! `status.nodeInfo`.

use std::fs;

use k8s_openapi::api::core::v1::NodeSystemInfo;

use crate::runtime::RuntimeVersion;

/// The version of Kubernetes whose behaviour this kubelet has.
pub(super) const VERSION: &str = "v1.36.2";

/// Facts about this machine.
pub(super) fn system(runtime: &RuntimeVersion) -> NodeSystemInfo {
    let uname = rustix::system::uname();
    NodeSystemInfo {
        machine_id: first_line("/etc/machine-id"),
        system_uuid: first_line("/sys/class/dmi/id/product_uuid"),
        boot_id: first_line("/proc/sys/kernel/random/boot_id"),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
        kubelet_version: VERSION.into(),
        kube_proxy_version: String::new(),
        operating_system: "linux".into(),
        architecture: architecture().into(),
        ..NodeSystemInfo::default()
    }
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn os_image(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The architecture in Go's words.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_the_pretty_name() {
        for (release, expected) in
            [("ID=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n", "Debian GNU/Linux 12"), ("", "Linux")]
        {
            assert_eq!(os_image(release), expected);
        }
    }
}
