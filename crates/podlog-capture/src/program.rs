//! Finding a program, with the error texts of Go's `os/exec`, which runc passes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::text::reason;

/// Where a program is: as named when the name holds a `/`, else in the first directory of `search` that has it.
///
/// # Errors
/// What the status of a container that could not be started says, e.g. `exec: "foo": executable file not found in $PATH`.
pub(crate) fn find(name: &str, search: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return executable(&path).map(|()| path).map_err(|why| format!("exec: {name:?}: {why}"));
    }
    let candidates =
        search.split(':').map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name));
    candidates
        .into_iter()
        .find(|path| !name.is_empty() && executable(path).is_ok())
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

fn executable(path: &Path) -> Result<(), String> {
    let metadata =
        fs::metadata(path).map_err(|error| format!("stat {}: {}", path.display(), reason(error)))?;
    if metadata.is_dir() {
        return Err("is a directory".to_owned());
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err("permission denied".to_owned());
    }
    access(path, Access::EXEC_OK).map_err(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_or_says_why_not() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dir = temp.path();
        fs::write(dir.join("plain"), "").expect("write");
        fs::write(dir.join("tool"), "").expect("write");
        fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o755)).expect("chmod");
        let (at, search) = (|name: &str| dir.join(name).display().to_string(), dir.display().to_string());
        let rows = [
            ("tool".to_owned(), Ok(dir.join("tool"))),
            (at("tool"), Ok(dir.join("tool"))),
            ("plain".to_owned(), Err("exec: \"plain\": executable file not found in $PATH".to_owned())),
            ("gone".to_owned(), Err("exec: \"gone\": executable file not found in $PATH".to_owned())),
            (String::new(), Err("exec: \"\": executable file not found in $PATH".to_owned())),
            (at("plain"), Err(format!("exec: \"{}\": permission denied", at("plain")))),
            (search.clone(), Err(format!("exec: \"{search}\": is a directory"))),
            (at("gone"), Err(format!("exec: \"{0}\": stat {0}: no such file or directory", at("gone")))),
            (at("plain/x"), Err(format!("exec: \"{0}\": stat {0}: not a directory", at("plain/x")))),
        ];
        for (name, expected) in rows {
            assert_eq!(find(&name, &format!("/nowhere:{search}")), expected, "{name}");
        }
    }
}
