//! `/logs/`: files below `/var/log` of this machine, only where `enableSystemLogHandler` says so.

use std::fs::File;
use std::io;
use std::path::{Component, Path};

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use podlog_serving::{Body, text_body};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;

use super::files::open_found;
use super::handler::plain;

const ROOT: &str = "/var/log";
const CHUNK: usize = 64 * 1024;

/// A directory's names, or a file's content as it is now.
pub(super) async fn answer(path: &str) -> Response<Body> {
    let path = path.to_owned();
    let found = spawn_blocking(move || find(Path::new(ROOT), &path)).await;
    match found.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(Found::Directory(names)) => {
            let mut response = Response::new(text_body(names));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            response
        }
        Ok(Found::File(file, size)) => stream(file, size),
        Err(_) => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

enum Found {
    Directory(String),
    File(File, u64),
}

/// What is at a path below `root`, where links may lead to other places below it. Nothing but directories and regular files is
/// opened.
fn find(root: &Path, path: &str) -> io::Result<Found> {
    let relative = Path::new(path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let root = root.canonicalize()?;
    let path = root.join(relative).canonicalize()?;
    let below = path.strip_prefix(&root).map_err(|_| io::ErrorKind::NotFound)?;
    open_below(&root, below)
}

/// Who writes there may have put a link in the place of something meanwhile: by now there is none to be followed.
fn open_below(root: &Path, path: &Path) -> io::Result<Found> {
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let found = openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    if FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Directory {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat2(&found, ".", flags, Mode::empty(), resolve)?;
        return names(Dir::new(directory)?).map(Found::Directory);
    }
    let file = open_found(&found)?;
    let size = file.metadata()?.len();
    Ok(Found::File(file, size))
}

fn names(entries: Dir) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        let slash = if entry.file_type() == FileType::Directory { "/" } else { "" };
        if !matches!(&*name, "." | "..") {
            names.push(format!("{name}{slash}"));
        }
    }
    names.sort();
    let escape = |name: &String| name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
    let links: String =
        names.iter().map(escape).map(|name| format!("<a href=\"{name}\">{name}</a>\n")).collect();
    Ok(format!("<pre>\n{links}</pre>\n"))
}

fn stream(file: File, size: u64) -> Response<Body> {
    let (sender, body) = podlog_serving::stream_body();
    tokio::spawn(async move {
        let mut file = tokio::fs::File::from_std(file).take(size);
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            match (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await {
                Ok(0) => return sender.finish().await,
                Ok(_) => {
                    if sender.send(chunk).await.is_err() {
                        return;
                    }
                }
                Err(error) => return sender.fail(error).await,
            }
        }
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, mknodat};

    use super::*;

    fn read(found: io::Result<Found>) -> Result<String, io::ErrorKind> {
        match found.map_err(|error| error.kind())? {
            Found::Directory(names) => Ok(names),
            Found::File(mut file, size) => {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(size, text.len() as u64);
                Ok(text)
            }
        }
    }

    #[test]
    fn nothing_leads_out_of_the_logs() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        let logs = folder.path().join("log");
        fs::create_dir_all(logs.join("pods")).unwrap();
        fs::write(logs.join("pods/a"), "a").unwrap();
        symlink(logs.join("pods/a"), logs.join("absolute")).unwrap();
        symlink("pods", logs.join("relative")).unwrap();
        symlink("../secret", logs.join("out")).unwrap();
        symlink(folder.path(), logs.join("up")).unwrap();
        mknodat(CWD, logs.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        let (gone, invalid) = (Err(io::ErrorKind::NotFound), Err(io::ErrorKind::InvalidInput));
        for (path, expected) in [
            ("pods/a", Ok("a".into())),
            ("absolute", Ok("a".into())),
            ("relative/a", Ok("a".into())),
            ("relative", Ok("<pre>\n<a href=\"a\">a</a>\n</pre>\n".into())),
            ("out", gone.clone()),
            ("up/secret", gone.clone()),
            ("../secret", gone.clone()),
            ("none", gone.clone()),
            ("fifo", invalid),
        ] {
            assert_eq!(read(find(&logs, path)), expected, "{path}");
        }
        assert!(read(find(&logs, "")).unwrap().contains("<a href=\"pods/\">pods/</a>"));
        // Links that came into being after it was looked where they lead.
        for path in ["out", "up/secret", "relative/a"] {
            assert!(open_below(&logs, Path::new(path)).is_err(), "{path}");
        }
    }
}
