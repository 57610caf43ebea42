//! Error texts as container runtimes word them.

use std::io;

/// The text of an I/O error as Go prints it: `no such file or directory`, without number and capital letter.
pub(crate) fn reason(error: impl Into<io::Error>) -> String {
    let text = error.into().to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Adds what was being done to an I/O error.
pub(crate) fn failed<E: Into<io::Error>>(step: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{step}: {}", reason(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_go() {
        for (errno, text) in [
            (2, "no such file or directory"),
            (8, "exec format error"),
            (13, "permission denied"),
            (20, "not a directory"),
        ] {
            assert_eq!(reason(io::Error::from_raw_os_error(errno)), text);
        }
        assert_eq!(failed("chdir")(io::Error::from_raw_os_error(1)), "chdir: operation not permitted");
    }
}
