//! The file of the pre-shared key.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ConfigError;
use crate::auth::AuthKey;

/// Bytes that a key must have at least: 128 bits.
pub const MIN_KEY: usize = 16;
/// Bytes that a key may have at most: a larger file is not a key file.
pub const MAX_KEY: usize = 4096;

/// Reads a key. Line ends at the end of the file do not count. A file that other users can read is one line of
/// the log at WARN, however often it is read.
pub fn read_key_file(path: &Path) -> Result<AuthKey, ConfigError> {
    let problem = |reason: String| ConfigError {
        variable: "FLAGCX_P2P_AUTH_KEY_FILE",
        text: format!("key file {}: {reason}", path.display()),
    };
    let file = File::open(path).map_err(|error| problem(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| problem(error.to_string()))?;
    if metadata.mode() & 0o077 != 0 && is_new(&metadata) {
        tracing::warn!(
            "key file {} is readable or writable by other users (mode {:o}); run chmod 600 on it",
            path.display(),
            metadata.mode() & 0o777
        );
    }
    let mut key = Vec::new();
    let limit = MAX_KEY as u64 + 1;
    file.take(limit).read_to_end(&mut key).map_err(|error| problem(error.to_string()))?;
    while key.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        key.pop();
    }
    match key.len() {
        MIN_KEY..=MAX_KEY => Ok(AuthKey::new(&key)),
        length => Err(problem(format!("has {length} bytes of key, expected {MIN_KEY} to {MAX_KEY}"))),
    }
}

/// Whether the file, or its mode, is another one than at the last complaint.
fn is_new(metadata: &Metadata) -> bool {
    /// Names the file and mode of the last complaint; any thread writes and reads it, and only that line of the log depends on it:
    /// Relaxed.
    static REPORTED: AtomicU64 = AtomicU64::new(0);
    let this = metadata.ino().rotate_left(16) ^ u64::from(metadata.mode());
    REPORTED.swap(this, Ordering::Relaxed) != this
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Initiator, Nonces, Purpose};

    fn key_of(content: &[u8]) -> Result<AuthKey, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, content).unwrap();
        read_key_file(&path)
    }

    #[test]
    fn a_key_is_the_content_without_line_ends() {
        let nonces = Nonces { initiator: [1; 16], responder: [2; 16] };
        let proof = |key: &AuthKey| Initiator::prove(key, Purpose::DATA, nonces).1;
        let read = key_of(b"0123456789abcdef\r\n\n").unwrap();
        assert_eq!(proof(&read), proof(&AuthKey::new(b"0123456789abcdef")));
    }

    #[test]
    fn short_long_and_missing_keys_are_refused() {
        assert!(key_of(b"0123456789abcde\n").unwrap_err().text.contains("15 bytes"));
        assert!(key_of(&vec![b'x'; MAX_KEY + 1]).is_err());
        assert!(read_key_file(Path::new("/nonexistent/key")).unwrap_err().text.contains("/nonexistent/key"));
    }
}
