//! Directories by URL.

use std::sync::Arc;

use crate::etcd::Etcd;
use crate::static_list::StaticList;
use crate::{Directory, Error, etcd_url};

/// The variable that names the directory of the tool and of Python programs.
pub const VARIABLE: &str = "FLAGCX_P2P_DIRECTORY";

/// The variable with the password of the user in the URL.
pub const PASSWORD: &str = "FLAGCX_P2P_DIRECTORY_PASSWORD";

/// The variable with the file that has that password.
pub const PASSWORD_FILE: &str = "FLAGCX_P2P_DIRECTORY_PASSWORD_FILE";

/// Opens the directory at `url`. Nothing is connected to yet.
///
/// * `static:NAME=HOST:PORT,NAME=HOST:PORT`: a list.
/// * `static:FILE`: a file with a line `NAME=HOST:PORT` for each name, read again at each call.
/// * `etcd://[USER[:PASSWORD]@]HOST[:PORT][,HOST...][/PREFIX][?lease=SECONDS&ca=FILE]`: etcd 3.4 or later. `etcds://` with TLS.
///   Servers are tried in turn. Without PREFIX it is `flagcx-p2p`. A password may stand in the variables [`PASSWORD`] and
///   [`PASSWORD_FILE`] instead.
///
/// # Errors
/// [`Error::Url`] with what is wrong, [`Error::File`] when a list, a certificate or a password cannot be read.
pub fn open(url: &str) -> Result<Arc<dyn Directory>, Error> {
    if let Some(list) = url.strip_prefix("static:") {
        return Ok(Arc::new(StaticList::parse(list)?));
    }
    if let Some(rest) = url.strip_prefix("etcd://") {
        return Ok(Arc::new(Etcd::new(etcd_url::parse(rest, false)?)?));
    }
    if let Some(rest) = url.strip_prefix("etcds://") {
        return Ok(Arc::new(Etcd::new(etcd_url::parse(rest, true)?)?));
    }
    // What follows may be a password.
    let scheme: String = url.chars().take_while(char::is_ascii_alphanumeric).take(LONGEST_SCHEME).collect();
    Err(Error::Url { url: format!("{scheme}..."), problem: "its kind is unknown".to_owned() })
}

/// Characters of an unknown kind in an error.
const LONGEST_SCHEME: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_url_opens_its_kind() {
        assert!(open("static:a=h:1").is_ok());
        assert_eq!(open("etcd://u:hunter2@h,i/p").unwrap().describe(), "etcd://h:2379,i:2379/p");
        for bad in ["", "redis://u:hunter2@h", "etcd:h", "h:2379", "static:/no/such/file"] {
            let error = open(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
