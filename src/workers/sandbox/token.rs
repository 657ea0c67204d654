//! Secrets read from files: never part of an item, a log line, an error or a dump.

use std::fmt;
use std::path::Path;

use crate::config::read_secret;

/// A secret. Shown as `Token(hidden)`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl Token {
    /// Reads a secret from a file; white space around it is cut.
    ///
    /// # Errors
    /// Text for people as [`read_secret`] has it, or when it is not one word of visible ASCII. Names the file, never its
    /// content.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = read_secret(path)?;
        if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err(format!("{}: is no token: one word of visible ASCII", path.display()))
        }
    }

    /// The secret itself, for the request that needs it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8], mode: u32) -> Result<Token, String> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Token::read(&path)
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = of(b" s3cret\n", 0o600).unwrap();
        assert_eq!(token.expose(), "s3cret");
        assert_eq!(format!("{token:?} {:?}", Some(&token)), "Token(hidden) Some(Token(hidden))");
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        for bad in [b"".to_vec(), b" \n".to_vec(), b"two words".to_vec(), vec![b'x'; 5000], b"a\xffb".to_vec()] {
            let refused = of(&bad, 0o600).unwrap_err();
            assert!(refused.contains("token") && !refused.contains("two"), "{refused}");
        }
        assert!(of(b"s3cret", 0o644).unwrap_err().contains("0644"), "others may read it");
        assert!(Token::read(std::path::Path::new("/none")).is_err());
    }
}
