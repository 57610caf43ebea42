//! `--token-auth-file`: tokens in a CSV file (`pkg/authentication/token/tokenfile`), read again when it changes.

use std::collections::HashMap;
use std::path::Path;

use async_trait::async_trait;
use http::request::Parts;
use podlog_api::UserInfo;
use podlog_serving::{Authenticator, AuthnError, Peer, Reloading, bearer_token};
use sha2::{Digest, Sha256};

/// Knows the tokens of a file.
pub(crate) struct TokenFileAuthenticator(Reloading<Users, std::io::Error>);

/// By the hash of their token, so that how long a look-up takes says nothing about tokens.
type Users = HashMap<[u8; 32], UserInfo>;

impl TokenFileAuthenticator {
    /// Reads `token,user,uid[,"group,group"]` lines.
    ///
    /// # Errors
    /// When the file cannot be read or a line has fewer than three columns.
    pub(crate) fn load(path: &Path) -> Result<Self, std::io::Error> {
        let file = path.to_owned();
        Reloading::new(vec![file.clone()], move || read(&file)).map(TokenFileAuthenticator)
    }
}

fn read(path: &Path) -> Result<Users, std::io::Error> {
    let text = std::fs::read_to_string(path)?;
    let mut users = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (token, user) = entry(line).ok_or_else(|| {
            let text = format!("line {}: needs at least token, user name and uid", number + 1);
            std::io::Error::new(std::io::ErrorKind::InvalidData, text)
        })?;
        users.insert(hash(&token), user);
    }
    Ok(users)
}

fn entry(line: &str) -> Option<(String, UserInfo)> {
    let mut columns = columns(line).into_iter();
    let token = columns.next().filter(|token| !token.is_empty())?;
    let (username, uid) = (columns.next()?, columns.next()?);
    let groups = columns.next().unwrap_or_default();
    let groups = groups.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned).collect();
    Some((token, UserInfo { username, uid, groups, ..UserInfo::default() }))
}

/// Columns of a CSV line; quotes hold commas and, doubled, quotes.
fn columns(line: &str) -> Vec<String> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let last = columns.len() - 1;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                columns[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            other => columns[last].push(other),
        }
    }
    columns.into_iter().map(|column| column.trim().to_owned()).collect()
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[async_trait]
impl Authenticator for TokenFileAuthenticator {
    async fn authenticate(&self, request: &Parts, _peer: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        Ok(bearer_token(request).and_then(|token| self.0.current().get(&hash(token)).cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let (token, user) = entry(r#"t0k, ann ,7,"dev, ops""#).unwrap();
        assert_eq!((token.as_str(), user.username.as_str(), user.uid.as_str()), ("t0k", "ann", "7"));
        assert_eq!(user.groups, ["dev", "ops"]);
        assert!(entry("t0k,ann").is_none());
        assert!(entry(",ann,7").is_none());
        assert_eq!(columns(r#"a,"b ""c"", d""#), ["a", r#"b "c", d"#]);
    }
}
