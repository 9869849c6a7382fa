//! The loader's own text of a library that cannot be loaded.

use std::error::Error;

/// What `dlopen` or `dlsym` reported (`libx.so: cannot open shared object file: ...`): the error itself names the call alone.
pub(crate) fn loader_error(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no dlopen")]
    #[allow(unsafe_code, reason = "loading a library")]
    fn the_library_or_the_symbol_is_named() {
        // SAFETY: no library of that name is there.
        let missing = unsafe { libloading::Library::new("libmissing-of-flagcx.so") }.unwrap_err();
        assert!(loader_error(&missing).contains("libmissing-of-flagcx.so: cannot open"), "{missing:?}");
        let this = libloading::os::unix::Library::this();
        // SAFETY: the symbol is not used.
        let missing = unsafe { this.get::<fn()>(b"missing_of_flagcx\0") }.unwrap_err();
        assert!(loader_error(&missing).contains("missing_of_flagcx"), "{missing:?}");
    }
}
