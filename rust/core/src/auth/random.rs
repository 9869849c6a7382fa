//! Unpredictable bytes.

use std::io;

/// Bytes of a [`Nonce`].
pub const NONCE_SIZE: usize = 16;

/// A random number of one side, used for one exchange.
pub type Nonce = [u8; NONCE_SIZE];

/// Unpredictable bytes from the kernel, or its error. There is no fallback: an exchange with a predictable number
/// proves nothing.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        io::Error::other(format!("cannot get random bytes from the kernel (getrandom): {error}"))
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
    }
}
