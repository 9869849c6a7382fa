//! Until the control plane brings them.
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
pub(super) fn local_address(config: &crate::config::Config) -> Option<IpAddr> {
    config.bind
}
pub(super) fn resolve(host: &str, port: u16) -> std::io::Result<SocketAddr> {
    (host, port).to_socket_addrs()?.next().ok_or_else(|| std::io::ErrorKind::NotFound.into())
}
pub(super) fn parse_session(s: &str) -> Result<(String, u16), String> {
    let (h, p) = s.rsplit_once(':').ok_or("no port")?;
    if h.is_empty() {
        return Err("no host".into());
    }
    Ok((h.to_owned(), p.parse().map_err(|_| "bad port".to_owned())?))
}
