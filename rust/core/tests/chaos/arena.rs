//! The two buffers that transfers move bytes between: one near, one far, in this process or in another.

use std::cell::RefCell;

use super::buffer::Buffer;
use super::last_seen::LastSeen;

/// Fills whatever no transfer may touch.
pub const GUARD: u8 = 0xa5;

/// The peer's buffer.
#[derive(Debug)]
pub enum Far {
    /// In this process.
    Here(Buffer),
    /// In another one, looked at past the engine.
    There { pid: i32, address: u64, length: usize },
}

#[derive(Debug)]
pub struct Arena {
    pub near: Buffer,
    pub far: Far,
    /// What `far` held last.
    pub seen: RefCell<LastSeen>,
}

impl Arena {
    pub fn new(near: Buffer, far: Far) -> Self {
        let seen = RefCell::new(LastSeen::nothing(near.length()));
        Self { near, far, seen }
    }

    /// Overwrites all of the far buffer; false when the other process has ended.
    pub fn fill_far(&self, bytes: &[u8]) -> bool {
        let count = self.far.write(bytes);
        self.seen.borrow_mut().filled(bytes, count);
        count == bytes.len()
    }

    pub fn length(&self) -> usize {
        self.near.length()
    }
}

impl Far {
    pub fn address(&self) -> u64 {
        match self {
            Self::Here(buffer) => buffer.address(),
            Self::There { address, .. } => *address,
        }
    }

    /// Overwrites all of it; false when the other process has ended.
    pub fn fill(&self, bytes: &[u8]) -> bool {
        self.write(bytes) == bytes.len()
    }

    /// Overwrites it from its start on; how many bytes, all of them unless the other process has ended.
    fn write(&self, bytes: &[u8]) -> usize {
        match self {
            Self::Here(buffer) => bytes.len() * usize::from(buffer.fill(bytes)),
            Self::There { pid, address, length } => {
                assert_eq!(bytes.len(), *length);
                let mut bytes = bytes.to_vec();
                foreign(*pid, *address, &mut bytes, true).try_into().unwrap_or(0)
            }
        }
    }

    /// All of it; `None` when the other process has ended.
    pub fn content(&self) -> Option<Vec<u8>> {
        match self {
            Self::Here(buffer) => Some(buffer.content()),
            Self::There { pid, address, length } => {
                let mut bytes = vec![0; *length];
                (foreign(*pid, *address, &mut bytes, false) == *length as isize).then_some(bytes)
            }
        }
    }
}

#[allow(unsafe_code, reason = "looks into the peer's memory without the engine under test")]
fn foreign(pid: i32, address: u64, bytes: &mut [u8], write: bool) -> isize {
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    let (near, far) = (&raw const local, &raw const remote);
    loop {
        // SAFETY: `local` is a live buffer of that length; the kernel checks `remote`, which belongs to a process of this
        // test that expects it.
        let moved = unsafe {
            match write {
                true => libc::process_vm_writev(pid, near, 1, far, 1, 0),
                false => libc::process_vm_readv(pid, near, 1, far, 1, 0),
            }
        };
        if moved >= 0 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return moved;
        }
    }
}
