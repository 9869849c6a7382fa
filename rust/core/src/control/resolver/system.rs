//! The system's resolver, with its own error texts.
#![allow(
    unsafe_code,
    reason = "calls getaddrinfo: the standard library's wrapper hides the code of its errors"
)]

use std::ffi::{CStr, CString};
use std::net::SocketAddr;
use std::{io, ptr};

use socket2::SockAddr;

/// The addresses of `name`, with port 0, in the resolver's order. May block without limit.
pub(super) fn look_up(name: &str) -> Result<Vec<SocketAddr>, String> {
    let name = CString::new(name).map_err(|_| "the name contains a NUL byte".to_owned())?;
    // SAFETY: a structure of numbers and null pointers, which is what unused hints must be.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    // Otherwise each address is returned once for every type of socket.
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut first = ptr::null_mut();
    loop {
        // SAFETY: the name and the hints are valid for the call, which fills `first` if it succeeds.
        let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut first) };
        // Read before anything else changes it.
        let system = io::Error::last_os_error();
        match code {
            0 => break,
            libc::EAI_SYSTEM if system.kind() == io::ErrorKind::Interrupted => {}
            code => return Err(words(code, &system)),
        }
    }
    let mut found = Vec::new();
    let mut at: *const libc::addrinfo = first;
    while !at.is_null() {
        // SAFETY: the call succeeded, so this is an entry of its list, which lives until freeaddrinfo.
        let entry = unsafe { &*at };
        found.extend(address(entry));
        at = entry.ai_next;
    }
    // SAFETY: the list is the call's, and nothing points into it any more.
    unsafe { libc::freeaddrinfo(first) };
    Ok(found)
}

/// `None` for what is neither IPv4 nor IPv6.
fn address(entry: &libc::addrinfo) -> Option<SocketAddr> {
    let length = entry.ai_addrlen;
    if entry.ai_addr.is_null() || length as usize > size_of::<libc::sockaddr_storage>() {
        return None;
    }
    // SAFETY: the storage has room for `length` bytes, as checked, and `ai_addr` points to as many of another object.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, size| {
            ptr::copy_nonoverlapping(entry.ai_addr.cast::<u8>(), storage.cast::<u8>(), length as usize);
            *size = length;
            Ok(())
        })
    }
    .ok()?;
    address.as_socket()
}

/// The resolver's text and code, with errno for EAI_SYSTEM.
fn words(code: i32, system: &io::Error) -> String {
    // SAFETY: gai_strerror answers a constant string for every number.
    let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) }.to_string_lossy();
    let name = match code {
        libc::EAI_NONAME => "EAI_NONAME",
        libc::EAI_NODATA => "EAI_NODATA",
        libc::EAI_AGAIN => "EAI_AGAIN",
        libc::EAI_FAIL => "EAI_FAIL",
        libc::EAI_MEMORY => "EAI_MEMORY",
        libc::EAI_OVERFLOW => "EAI_OVERFLOW",
        libc::EAI_SYSTEM => return format!("{text} (EAI_SYSTEM, {code}): {system}"),
        _ => return format!("{text} (getaddrinfo {code})"),
    };
    format!("{text} ({name}, {code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no getaddrinfo")]
    fn numbers_are_addresses() {
        assert_eq!(look_up("127.0.0.1"), Ok(vec!["127.0.0.1:0".parse().unwrap()]));
        assert_eq!(look_up("fe80::1%1"), Ok(vec!["[fe80::1%1]:0".parse().unwrap()]));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no getaddrinfo")]
    fn errors_are_the_resolvers_own() {
        let system = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert!(words(libc::EAI_AGAIN, &system).ends_with("(EAI_AGAIN, -3)"));
        assert!(words(libc::EAI_SYSTEM, &system).contains("Connection refused"));
        assert!(look_up("a\0b").unwrap_err().contains("NUL"));
        // No resolver queries a server for a name with an empty label.
        let error = look_up("a..b").unwrap_err();
        assert!(error.contains("EAI_"), "{error}");
    }
}
