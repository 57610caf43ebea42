//! Writes the files of a volume so that readers see either all of the old or all of the new ones.
//!
//! The files are in a directory of their own, `..data` is a symlink to it that is replaced by rename, and what users open
//! are symlinks through `..data` (`pkg/volume/util/atomic_writer.go`).

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use super::VolumeError;
use super::ownership;
use super::payload::{File, Payload};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Brings the volume's files to `payload`. Does nothing when they are the same already.
pub(super) fn write(
    volume: &Path,
    payload: &Payload,
    group: Option<u32>,
    stamp: Timestamp,
) -> Result<(), VolumeError> {
    let old = fs::read_link(volume.join(DATA)).ok();
    if old.as_ref().is_some_and(|old| holds(&volume.join(old), payload)) {
        link_names(volume, payload)?;
        return Ok(());
    }
    let name = format!("..{}", stamp.strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let directory = volume.join(&name);
    write_files(&directory, payload, group)?;
    swap(volume, &name)?;
    link_names(volume, payload)?;
    remove_names(volume, payload)?;
    if let Some(old) = old.filter(|old| old.as_os_str() != name.as_str() && is_one_name(old)) {
        let path = volume.join(old);
        fs::remove_dir_all(&path).map_err(VolumeError::io("cannot remove", &path))?;
    }
    Ok(())
}

fn is_one_name(path: &Path) -> bool {
    matches!(path.components().collect::<Vec<_>>().as_slice(), [Component::Normal(_)])
}

fn holds(directory: &Path, payload: &Payload) -> bool {
    let mut names = Vec::new();
    if collect(directory, Path::new(""), &mut names).is_err() || names.len() != payload.len() {
        return false;
    }
    payload.iter().all(|(name, file)| fs::read(directory.join(name)).is_ok_and(|data| data == file.data))
}

fn collect(root: &Path, below: &Path, names: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &name, names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

fn write_files(directory: &Path, payload: &Payload, group: Option<u32>) -> Result<(), VolumeError> {
    make_directory(directory, group)?;
    for (name, file) in payload {
        let path = directory.join(name);
        if let Some(parent) = path.parent().filter(|parent| *parent != directory) {
            make_directory(parent, group)?;
        }
        write_file(&path, file, group).map_err(VolumeError::io("cannot write", &path))?;
    }
    Ok(())
}

fn make_directory(path: &Path, group: Option<u32>) -> Result<(), VolumeError> {
    fs::create_dir_all(path).map_err(VolumeError::io("cannot create", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .map_err(VolumeError::io("cannot set the mode of", path))?;
    group.map_or(Ok(()), |group| ownership::share_directory(path, group))
}

fn write_file(path: &Path, file: &File, group: Option<u32>) -> io::Result<()> {
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    out.write_all(&file.data)?;
    if file.owner.is_some() || group.is_some() {
        std::os::unix::fs::chown(path, file.owner, group)?;
    }
    let shared = if group.is_some() { 0o440 } else { 0 };
    out.set_permissions(Permissions::from_mode(file.mode | shared))
}

fn swap(volume: &Path, name: &str) -> Result<(), VolumeError> {
    let (new, data) = (volume.join(DATA_NEW), volume.join(DATA));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(VolumeError::io("cannot remove", &new)(error));
        }
        _ => {}
    }
    symlink(name, &new).map_err(VolumeError::io("cannot link", &new))?;
    fs::rename(&new, &data).map_err(VolumeError::io("cannot replace", &data))
}

fn first_parts(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().filter_map(|name| name.split('/').next()).collect()
}

fn link_names(volume: &Path, payload: &Payload) -> Result<(), VolumeError> {
    for name in first_parts(payload) {
        let path = volume.join(name);
        match symlink(Path::new(DATA).join(name), &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(VolumeError::io("cannot link", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn remove_names(volume: &Path, payload: &Payload) -> Result<(), VolumeError> {
    let wanted = first_parts(payload);
    for entry in fs::read_dir(volume).map_err(VolumeError::io("cannot list", volume))? {
        let entry = entry.map_err(VolumeError::io("cannot list", volume))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            let path = entry.path();
            fs::remove_file(&path).map_err(VolumeError::io("cannot remove", &path))?;
        }
    }
    Ok(())
}
