//! Arguments about where a server listens.

use std::net::{IpAddr, Ipv4Addr};

use clap::Args;

use crate::listener::ListenOptions;

#[derive(Debug, Args)]
pub(super) struct ListenArgs {
    /// Address to listen on; the default is this machine only
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "IP")]
    listen: IpAddr,
    /// End when standard input ends
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

impl ListenArgs {
    pub(super) fn at(self, port: u16) -> ListenOptions {
        ListenOptions { ip: self.listen, port, until_stdin_closes: self.until_stdin_closes }
    }
}
