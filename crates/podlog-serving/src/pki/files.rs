//! Files of certificates and keys.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of files with secrets.
pub(super) const SECRET: u32 = 0o600;
/// Mode of files that anybody may read.
pub(super) const PUBLIC: u32 = 0o644;

/// Where a certificate (with its chain) and its key live, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPairFiles {
    /// The certificate, its issuers after it.
    pub certificate: PathBuf,
    /// The private key: PKCS #8, SEC 1 or PKCS #1.
    pub key: PathBuf,
}

impl KeyPairFiles {
    /// `<name>.crt` and `<name>.key` in `folder`.
    pub fn in_folder(folder: &Path, name: &str) -> Self {
        KeyPairFiles {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        }
    }
}

/// Why certificates or keys could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has other content than expected.
    #[error("{} is not usable: {reason}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Never its content.
        reason: String,
    },
    /// A name that cannot stand in a certificate.
    #[error("{name:?} cannot be a name in a certificate")]
    Name {
        /// The name.
        name: String,
    },
    /// The certificate of the authority that is to sign has ended.
    #[error("the certificate of the authority has ended")]
    AuthorityEnded,
    /// A key or certificate could not be made.
    #[error("cannot make a certificate or key")]
    Generate(#[source] rcgen::Error),
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        PkiError::Generate(error)
    }
}

/// Reads a file; `None` when there is none.
pub(super) fn read_if_present(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read { path: path.to_owned(), source }),
    }
}

/// Replaces a file so that after a crash its old or its new content is there, never a mixture. Missing folders are
/// made, for their owner only.
///
/// # Errors
/// When the file system refuses; the old file is then untouched.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    replace(path, content, mode).map_err(|source| PkiError::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", uuid::Uuid::new_v4()));
    let written = write_new(&temporary, content, mode).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one that matters.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The umask may have taken bits away.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_with_the_mode_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/file");
        for (content, mode) in [("first", SECRET), ("second and longer", PUBLIC), ("", SECRET)] {
            write_atomically(&path, content.as_bytes(), mode).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "no temporary file stays");
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let path = folder.path().join("file/below");
        let error = write_atomically(&path, b"", SECRET).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write {}", path.display()));
    }
}
