//! Who owns a volume's files: `fsGroup`, the single user of a pod, and tmpfs for `medium: Memory`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use rustix::mount::{MountFlags, mount};

use super::VolumeError;
use crate::pods::all_containers;
use podlog_api::quantity::Quantity;

/// The group that gets the pod's volumes; `None` when none is asked for or we may not change groups.
pub(super) fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    let group = u32::try_from(context.fs_group?).ok()?;
    rustix::process::geteuid().is_root().then_some(group)
}

/// The user that all containers run as, if they agree and we may give files away.
pub(super) fn only_user(pod: &Pod) -> Option<u32> {
    if !rustix::process::geteuid().is_root() || fs_group(pod).is_some() {
        return None;
    }
    let of_pod = pod.spec.as_ref()?.security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = all_containers(pod).map(|(container, _)| {
        container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

/// Gives a directory to a group: members may write, and new files belong to the group too.
pub(super) fn share_directory(path: &Path, group: u32) -> Result<(), VolumeError> {
    std::os::unix::fs::chown(path, None, Some(group))
        .map_err(VolumeError::io("cannot change the group of", path))?;
    let mode = fs::metadata(path).map_err(VolumeError::io("cannot stat", path))?.permissions().mode();
    fs::set_permissions(path, Permissions::from_mode((mode & 0o7777) | 0o2770))
        .map_err(VolumeError::io("cannot set the mode of", path))
}

/// Puts a directory into memory where the system lets us; otherwise it stays on disk, which only costs speed.
pub(super) fn mount_tmpfs(path: &Path, size_limit: Option<&str>) {
    let size = size_limit.and_then(Quantity::parse).map(Quantity::value).filter(|bytes| *bytes > 0);
    let options = size.map_or_else(|| "mode=0777".to_owned(), |bytes| format!("mode=0777,size={bytes}"));
    let Ok(options) = std::ffi::CString::new(options) else { return };
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    if let Err(error) = mount("tmpfs", path, "tmpfs", flags, options.as_c_str()) {
        tracing::info!(path = %path.display(), %error, "cannot mount tmpfs, the volume stays on disk");
    }
}
