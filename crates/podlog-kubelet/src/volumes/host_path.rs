//! Checks of `hostPath.type` (`pkg/volume/hostpath/host_path.go`).

use std::fs::{self, FileType};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::VolumeError;

/// Checks that the path is what `kind` says, creating it for the kinds that ask for that.
pub(super) fn check(path: &Path, kind: &str) -> Result<(), VolumeError> {
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    match (kind, found) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(VolumeError::io("cannot create", path)),
        ("FileOrCreate", None) => fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map(drop)
            .map_err(VolumeError::io("cannot create", path)),
        ("Directory" | "DirectoryOrCreate", found) => expect(path, found, FileType::is_dir, "a directory"),
        ("File" | "FileOrCreate", found) => expect(path, found, FileType::is_file, "a file"),
        ("Socket", found) => expect(path, found, FileTypeExt::is_socket, "a socket file"),
        ("CharDevice", found) => expect(path, found, FileTypeExt::is_char_device, "a character device"),
        ("BlockDevice", found) => expect(path, found, FileTypeExt::is_block_device, "a block device"),
        (other, _) => Err(VolumeError::Spec(format!("{other} is an invalid volume type"))),
    }
}

fn expect(
    path: &Path,
    found: Option<FileType>,
    is: impl Fn(&FileType) -> bool,
    what: &str,
) -> Result<(), VolumeError> {
    if found.as_ref().is_some_and(is) {
        return Ok(());
    }
    Err(VolumeError::Spec(format!("hostPath type check failed: {} is not {what}", path.display())))
}
