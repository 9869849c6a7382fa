//! The address that is advertised to peers, and the reason for it.

use flagcx_p2p::Config;
use flagcx_p2p::internals::control::{InterfaceRules, interfaces, local_address, rank_interfaces};

use super::finding::Report;

/// Addresses that are shown: hosts of containers have hundreds.
const SHOWN: usize = 8;

/// Reports it with the addresses of this host, the one to choose first.
pub(super) fn report(config: &Config, report: &mut Report) {
    let subject = "advertised address";
    match local_address(config) {
        Ok(local) => {
            match local.advertised {
                Some(advertised) => {
                    let port =
                        advertised.port.map_or_else(String::new, |port| format!(", control port {port}"));
                    report.ok(
                        "advertised-address",
                        subject,
                        format!("{}{port}, because: FLAGCX_P2P_ADVERTISE", advertised.ip),
                    );
                    report.ok(
                        "own-address",
                        "this host's own",
                        format!("{}, because: {}", local.own, local.reason),
                    );
                }
                None if local.told().is_loopback() => report.warn(
                    "advertised-address",
                    subject,
                    format!("{}, because: {}: peers of this host alone reach it", local.told(), local.reason),
                    "FLAGCX_SOCKET_IFNAME or FLAGCX_P2P_BIND chooses another one",
                ),
                None => report.ok(
                    "advertised-address",
                    subject,
                    format!("{}, because: {}", local.told(), local.reason),
                ),
            }
            report.ok("bind-address", "listeners bind to", local.bind.to_string());
        }
        Err(error) => report.fail(
            "advertised-address",
            subject,
            format!("no engine opens: {error}"),
            "FLAGCX_SOCKET_IFNAME or FLAGCX_P2P_BIND chooses an address",
        ),
    }
    let all = interfaces();
    let ranked = rank_interfaces(&all, &InterfaceRules::from_config(config));
    let more = ranked.len().saturating_sub(SHOWN);
    for one in ranked.into_iter().take(SHOWN) {
        let choice = match one.choice {
            Ok(preference) => preference.to_string(),
            Err(unfit) => format!("never: {unfit}"),
        };
        report.ok(
            "interface",
            format!("interface {}", one.interface.name),
            format!("{}, {choice}", one.interface.network),
        );
    }
    if more > 0 {
        report.ok("interfaces-more", "interfaces", format!("{more} more addresses, less fit than those"));
    }
}
