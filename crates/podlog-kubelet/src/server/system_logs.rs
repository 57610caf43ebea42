//! `/logs/`: files below `/var/log` of this machine, only where `enableSystemLogHandler` says so.

use std::path::{Component, Path, PathBuf};

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use podlog_serving::{Body, text_body};
use tokio::fs::{self, File};
use tokio::io::AsyncReadExt;

use super::handler::plain;

const ROOT: &str = "/var/log";
const CHUNK: usize = 64 * 1024;

/// A directory's names, or a file's content as it is now.
pub(super) async fn answer(path: &str) -> Response<Body> {
    match open(path).await {
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

async fn open(path: &str) -> std::io::Result<Found> {
    let relative = Path::new(path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    let path = fs::canonicalize(Path::new(ROOT).join(relative)).await?;
    if !path.starts_with(ROOT) {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    let metadata = fs::metadata(&path).await?;
    if metadata.is_dir() {
        return names(path).await.map(Found::Directory);
    }
    Ok(Found::File(File::open(path).await?, metadata.len()))
}

async fn names(path: PathBuf) -> std::io::Result<String> {
    let mut entries = fs::read_dir(path).await?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let slash = if entry.file_type().await?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
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
        let mut file = file.take(size);
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
