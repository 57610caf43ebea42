//! `subPath`: a part of a volume, which must not lead out of it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::VolumeError;

/// The path of `sub_path` inside `volume`. When it does not exist it is made as a directory that is as open as the volume
/// (`SafeMakeDir` of `pkg/volume/util/subpath/subpath_linux.go`).
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
        make(&root, &wanted)?;
    }
    inside(&root, &wanted)
}

fn make(root: &Path, wanted: &Path) -> Result<(), VolumeError> {
    let existing = nearest_existing(wanted);
    inside(root, existing)?;
    let permissions = fs::metadata(root).map_err(VolumeError::io("cannot stat", root))?.permissions();
    fs::create_dir_all(wanted).map_err(VolumeError::io("cannot create", wanted))?;
    for made in wanted.ancestors().take_while(|ancestor| *ancestor != existing) {
        fs::set_permissions(made, permissions.clone())
            .map_err(VolumeError::io("cannot set the mode of", made))?;
    }
    Ok(())
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
