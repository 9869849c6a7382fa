//! Standard error without a lock.

use std::io::{self, Write};

/// Writes to descriptor 2. The standard library's handle has a lock, which another thread may have held when the process was
/// forked: the first line of the child would wait for it for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stderr(), text)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
