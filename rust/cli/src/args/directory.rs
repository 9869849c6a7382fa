//! Arguments about the directory that knows names of peers.

#[cfg(feature = "directory")]
use std::convert::Infallible;

use clap::Args;
use flagcx_p2p::internals::config::Hidden;

use crate::names::{Peer, PeerName, PublishOptions};

/// Where names are looked up.
#[derive(Debug, Args)]
pub(super) struct DirectoryArgs {
    /// Directory of names: static:NAME=HOST:PORT,.., static:FILE or etcd://HOST:PORT/PREFIX; the default is FLAGCX_P2P_DIRECTORY
    #[cfg(feature = "directory")]
    #[arg(long = "directory", id = "directory-url", value_name = "URL", value_parser = hidden)]
    url: Option<Hidden>,
}

/// The name under which a server is found.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// Publish the server under this name in the directory, until it ends
    #[cfg(feature = "directory")]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    directory: DirectoryArgs,
}

impl DirectoryArgs {
    pub(super) fn url(self) -> Option<Hidden> {
        #[cfg(feature = "directory")]
        return self.url;
        #[cfg(not(feature = "directory"))]
        None
    }

    /// A peer of the command line; its name is looked up here.
    pub(super) fn peer(self, name: PeerName) -> Peer {
        Peer { name, directory: self.url() }
    }
}

impl From<PublishArgs> for PublishOptions {
    fn from(args: PublishArgs) -> Self {
        #[cfg(feature = "directory")]
        return Self { name: args.name, directory: args.directory.url() };
        #[cfg(not(feature = "directory"))]
        {
            drop(args);
            Self
        }
    }
}

/// It may have a password in it.
#[cfg(feature = "directory")]
fn hidden(url: &str) -> Result<Hidden, Infallible> {
    Ok(Hidden::new(url.to_owned()))
}
