//! What a URL of etcd says.

use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;

/// How etcd is reached, and where in it the names are.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `host:port` of each server.
    pub(crate) endpoints: Vec<String>,
    /// Whether they speak TLS.
    pub(crate) tls: bool,
    /// The certificates that theirs are held against; `None` for those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// Certificate and key of this client.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// The user, if etcd knows users.
    pub(crate) user: Option<User>,
    /// The groups in front of every name, without slashes at the ends.
    pub(crate) prefix: String,
    /// How long a name outlives its process.
    pub(crate) lease: Duration,
}

/// A user with the password.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: Secret,
}

impl Settings {
    /// The URL without the user.
    pub(super) fn describe(&self) -> String {
        let Self { endpoints, tls, prefix, .. } = self;
        let scheme = if *tls { "etcds" } else { "etcd" };
        format!("{scheme}://{}/{prefix}", endpoints.join(","))
    }
}
