//! Configuration and addresses, as the tool needs them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{CliError, Result};
use flagcx_p2p::EngineOptions;
use flagcx_p2p::internals::auth::AuthKey;
use flagcx_p2p::internals::config::{self, Config};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, PathKind};

/// The engine's configuration: the process's own, with its listeners on the interface of `listen`, unless that is
/// the unspecified address or a variable chooses the interface.
pub(crate) fn config(listen: Option<IpAddr>) -> Result<Arc<Config>> {
    let config = config::global();
    config.check().map_err(|error| CliError::other(error.to_string()))?;
    let chosen = config.bind.is_some() || config.socket_ifname.is_some() || config.comm_id.is_some();
    match listen.filter(|ip| !ip.is_unspecified() && !chosen) {
        Some(ip) => {
            let mut config = Config::clone(config);
            config.bind = Some(ip);
            Ok(Arc::new(config))
        }
        None => Ok(Arc::clone(config)),
    }
}

/// The key that peers must know, if the configuration names one.
pub(crate) fn auth_key(config: &Config) -> Result<Option<AuthKey>> {
    config.auth_key().map_err(|error| CliError::other(error.to_string()))
}

/// Options of an engine that uses only `path` of the software fabric, and fails to connect without it. `own` is this side's
/// address towards the peer.
pub(crate) fn engine_options_over(path: PathKind, config: &Config, own: IpAddr) -> Result<EngineOptions> {
    let mut options = config.fabric_options().map_err(|error| CliError::other(error.to_string()))?;
    options.choice = FabricChoice::Software;
    options.software.force = Some(path);
    options.software.bind = Some(own);
    let devices = DeviceList::open(&options)?;
    Ok(EngineOptions { devices: Some(Arc::new(devices)), ..EngineOptions::default() })
}

/// Processor time of this process so far, all threads, user and system.
pub(crate) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Where a peer's engine listens, from its metadata `ip:port?gpu?notifPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) gpu: i32,
}

impl PeerAddress {
    /// Reads metadata. A peer that listens everywhere is reached at `reached`, where its control stream is.
    pub(crate) fn parse(metadata: &str, reached: IpAddr) -> Result<Self> {
        Self::read(metadata, reached).ok_or_else(|| {
            CliError::protocol(format!("malformed engine address `{}`", metadata.escape_debug()))
        })
    }

    /// What a connect to it is called in an error, for a peer with its control stream at `reached`.
    pub(crate) fn connecting(&self, reached: IpAddr) -> String {
        let reached = reached.to_canonical();
        if self.host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical() == reached) {
            return "connect the engines".to_owned();
        }
        let Self { host, .. } = self;
        format!(
            "connect the engines (the peer was reached at {reached}, and its engine announces {host}; --listen {reached}, FLAGCX_SOCKET_FAMILY, FLAGCX_SOCKET_IFNAME or FLAGCX_P2P_ADVERTISE there changes that)"
        )
    }

    fn read(metadata: &str, reached: IpAddr) -> Option<Self> {
        let (address, rest) = metadata.split_once('?')?;
        let (host, port) = address.rsplit_once(':')?;
        let host = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']'))?;
        let gpu = rest.split('?').next()?.parse().ok()?;
        // Without its scope: a link-local address is not parsed here, and taken as it is.
        let host = match host.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => reached.to_string(),
            Ok(_) => host.to_owned(),
            Err(_) if host.contains('%') => host.to_owned(),
            Err(_) => return None,
        };
        Some(Self { host, port: port.parse().ok().filter(|port| *port != 0)?, gpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata() {
        let reached: IpAddr = "10.1.2.3".parse().unwrap();
        let read = |text| PeerAddress::read(text, reached).map(|peer| (peer.host, peer.port, peer.gpu));
        assert_eq!(read("192.0.2.2:53569?0?48037"), Some(("192.0.2.2".into(), 53569, 0)));
        assert_eq!(read("[2001:db8::1]:5?3?0"), Some(("2001:db8::1".into(), 5, 3)));
        assert_eq!(read("[fe80::1%eth0]:5?3?0"), Some(("fe80::1%eth0".into(), 5, 3)));
        assert_eq!(read("0.0.0.0:5?0?0"), Some(("10.1.2.3".into(), 5, 0)));
        for bad in
            ["", "1.2.3.4", "1.2.3.4:5", "1.2.3.4:0?0?0", "1.2.3.4:70000?0?0", "host:1?0?0", "[::1:5?0?0"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_connect_names_an_address_that_differs() {
        let reached: IpAddr = "::ffff:192.0.2.2".parse().unwrap();
        let connecting = |text| PeerAddress::read(text, reached).unwrap().connecting(reached);
        assert_eq!(connecting("192.0.2.2:53569?0?48037"), "connect the engines");
        assert_eq!(connecting("0.0.0.0:53569?0?48037"), "connect the engines");
        assert!(connecting("[2001:db8::1]:5?3?0").contains("announces 2001:db8::1; --listen 192.0.2.2, "));
    }

    #[test]
    fn processor_time_grows() {
        let before = processor_time();
        let mut sum = 0_u64;
        while processor_time() - before < Duration::from_millis(2) {
            sum = sum.wrapping_add(1);
        }
        assert!(sum > 0);
    }
}
