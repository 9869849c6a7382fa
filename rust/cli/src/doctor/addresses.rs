//! The address that is advertised to peers, and the reason for it.

use flagcx_p2p::Config;
use flagcx_p2p::internals::control::{InterfaceRules, interfaces, local_address, rank_interfaces};

use super::{Findings, fact, heading};

/// Reports it with every address of this host, the one to choose first.
pub(super) fn report(config: &Config, findings: &mut Findings) {
    heading("addresses");
    match local_address(config) {
        Ok(local) => {
            match local.advertised {
                Some(advertised) => {
                    let port =
                        advertised.port.map_or_else(String::new, |port| format!(", control port {port}"));
                    fact(
                        "advertised address",
                        &format!("{}{port}, because: FLAGCX_P2P_ADVERTISE", advertised.ip),
                    );
                    fact("this host's own", &format!("{}, because: {}", local.own, local.reason));
                }
                None => fact("advertised address", &format!("{}, because: {}", local.told(), local.reason)),
            }
            fact("listeners bind to", &local.bind.to_string());
        }
        Err(error) => {
            fact("advertised address", "nothing");
            findings.add(format!("no engine opens: {error}"));
        }
    }
    for one in rank_interfaces(&interfaces(), &InterfaceRules::from_config(config)) {
        let choice = match one.choice {
            Ok(preference) => preference.to_string(),
            Err(unfit) => format!("never: {unfit}"),
        };
        let address = one.interface.network.to_string();
        fact(&one.interface.name, &format!("{address:<24} {choice}"));
    }
}
