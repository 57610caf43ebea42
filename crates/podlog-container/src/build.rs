//! Which build of a program this is.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fmt, fs, io};

/// A build of podlog, known by the file that holds it: a program that is installed anew is another file, even when its version is
/// the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    version: &'static str,
    device: u64,
    inode: u64,
    bytes: u64,
    modified_nanoseconds: i128,
}

impl Build {
    /// The build of this process, whatever has become of its file.
    ///
    /// # Errors
    /// When there is no `/proc`.
    pub fn own() -> io::Result<Self> {
        Self::of(Path::new("/proc/self/exe"))
    }

    /// The build of a program. Its version is taken for that of this one.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn of(program: &Path) -> io::Result<Self> {
        let file = fs::metadata(program)?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified_nanoseconds: i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec()),
        })
    }
}

/// `<version>-<device>-<inode>-<bytes>-<modified>`, the numbers in hexadecimal.
impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, device, inode, bytes, modified_nanoseconds } = self;
        write!(f, "{version}-{device:x}-{inode:x}-{bytes:x}-{modified_nanoseconds:x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_installed_anew_is_another_build() {
        let directory = tempfile::tempdir().expect("a directory");
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        for path in [&first, &second] {
            fs::write(path, "program").expect("write");
        }
        let build = |path| Build::of(path).expect("a file").to_string();
        assert_eq!(build(&first), build(&first));
        assert_ne!(build(&first), build(&second));
        let own = Build::own().expect("own build").to_string();
        assert!(own.starts_with(env!("CARGO_PKG_VERSION")) && !own.contains(' '), "{own}");
    }
}
