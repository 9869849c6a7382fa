//! The user's home directory as the password database has it: the original engine ignores `$HOME`.
#![allow(unsafe_code, reason = "getpwuid_r has no safe wrapper among our dependencies")]

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Home directory of the effective user, `None` when the database does not know it.
pub(super) fn directory() -> Option<PathBuf> {
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut buffer = vec![0; 16 * 1024];
    let mut found = std::ptr::null_mut();
    let user = rustix::process::geteuid().as_raw();
    let mut look_up = || {
        // SAFETY: all pointers are valid for the call, and the length is the buffer's.
        unsafe { libc::getpwuid_r(user, entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found) }
    };
    let mut status = look_up();
    while status == libc::EINTR {
        status = look_up();
    }
    if status != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call succeeded and found an entry, so it has filled `entry`.
    let directory = unsafe { entry.assume_init() }.pw_dir;
    if directory.is_null() {
        return None;
    }
    // SAFETY: `pw_dir` is a NUL-terminated string inside `buffer`, which outlives this borrow.
    let bytes = unsafe { CStr::from_ptr(directory) }.to_bytes();
    (!bytes.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg_attr(miri, ignore = "Miri has no getpwuid_r")]
    fn the_directory_is_absolute() {
        // A user that is not in the database has none, which is valid as well.
        if let Some(directory) = super::directory() {
            assert!(directory.is_absolute(), "{directory:?}");
        }
    }
}
