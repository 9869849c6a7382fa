//! The loopback interface of a network namespace.
#![allow(unreachable_pub, reason = "a module of each test that includes it")]

use std::ffi::c_short;

/// Turns it on or off: what is sent while it is off is lost without a word.
pub fn switch(up: bool) {
    // SAFETY: `ifreq` is a C struct for which all zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = if up { libc::IFF_UP as c_short } else { 0 };
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: the request outlives the call, which reads it.
    let code = unsafe {
        libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw const request)
    };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}
