//! `subPath`: a part of a volume, which must not lead out of it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::VolumeError;

/// The path of `sub_path` inside `volume`, made as a directory when it does not exist.
///
/// # Errors
/// When it leads out of the volume, by `..` or by a symlink.
pub(crate) fn resolve(volume: &Path, sub_path: &str) -> Result<PathBuf, VolumeError> {
    if sub_path.is_empty() {
        return Ok(volume.to_owned());
    }
    let relative = Path::new(sub_path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(VolumeError::Spec("subPath must not contain \"..\"".into()));
    }
    let root = fs::canonicalize(volume).map_err(VolumeError::io("cannot resolve", volume))?;
    let wanted = root.join(relative);
    if fs::symlink_metadata(&wanted).is_err() {
        inside(&root, nearest_existing(&wanted))?;
        fs::create_dir_all(&wanted).map_err(VolumeError::io("cannot create", &wanted))?;
    }
    inside(&root, &wanted)
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| fs::symlink_metadata(ancestor).is_ok()).unwrap_or(path)
}

fn inside(root: &Path, path: &Path) -> Result<PathBuf, VolumeError> {
    let real = fs::canonicalize(path).map_err(VolumeError::io("cannot resolve", path))?;
    if real.starts_with(root) {
        Ok(real)
    } else {
        Err(VolumeError::Spec(format!("subPath {} leads out of its volume", path.display())))
    }
}
