//! The settings that count when a process opens its devices, and not again.

use std::fmt::Debug;

use super::{Config, ConfigError};
use crate::fabric::{FabricChoice, Provider};

/// Those with which the devices were opened.
#[derive(Debug)]
pub(crate) struct DeviceSettings {
    /// A value and its text for each of [`ALL`].
    values: Vec<(String, Option<String>)>,
}

/// A setting: its variable, the one that counts where that is unset, and its value.
type OfDevices = (&'static str, Option<&'static str>, fn(&Config) -> String);

const ALL: &[OfDevices] = &[
    (FABRIC, None, |config| text(&config.fabric)),
    ("FLAGCX_P2P_PATH", None, |config| text(&config.path)),
    ("FLAGCX_P2P_SOFTWARE_DEVICES", None, |config| text(&config.software_devices)),
    ("FLAGCX_P2P_FAULTS", None, |config| text(&config.faults)),
    ("FLAGCX_IB_DISABLE", None, |config| text(&config.ib_disable)),
    ("FLAGCX_P2P_IBVERBS", None, |config| text(&config.ibverbs)),
    ("FLAGCX_IB_HCA", None, |config| text(&config.ib_hca)),
    ("FLAGCX_P2P_IB_PORT", None, |config| text(&config.ib_port)),
    ("FLAGCX_P2P_GID_INDEX", Some("FLAGCX_IB_GID_INDEX"), |config| text(&config.gid_index)),
    ("FLAGCX_IB_ROCE_VERSION_NUM", None, |config| text(&config.roce_version)),
    ("FLAGCX_IB_ADDR_FAMILY", None, |config| text(&config.prefer_ipv6)),
    ("FLAGCX_IB_ADDR_RANGE", None, |config| text(&config.ib_addr_range)),
    ("FLAGCX_P2P_MTU", None, |config| text(&config.mtu)),
    ("FLAGCX_P2P_IB_TC", Some("FLAGCX_IB_TC"), |config| text(&config.traffic_class)),
    ("FLAGCX_P2P_RETRY_CNT", Some("FLAGCX_IB_RETRY_CNT"), |config| text(&config.retry_count)),
    ("FLAGCX_IB_TIMEOUT", None, |config| text(&config.ib_timeout)),
    ("FLAGCX_IB_PKEY", None, |config| text(&config.pkey_index)),
    ("FLAGCX_IB_SL", None, |config| text(&config.service_level)),
    ("FLAGCX_IB_PCI_RELAXED_ORDERING", None, |config| text(&config.relaxed_ordering)),
    ("FLAGCX_P2P_ALLOW", None, |config| text(&config.allow)),
    ("FLAGCX_P2P_AUTH_KEY_FILE", None, |config| text(&config.auth_key_file)),
];

/// Those of [`ALL`] that protect the one port at which the software fabric listens for bytes. An engine's own port goes by its own, but
/// bytes would move with less protection than it asks for.
const OF_DATA_PORT: &[&str] = &["FLAGCX_P2P_ALLOW", "FLAGCX_P2P_AUTH_KEY_FILE"];

const FABRIC: &str = "FLAGCX_P2P_FABRIC";

impl DeviceSettings {
    pub(crate) fn of(config: &Config) -> Self {
        let value = |(first, second, value): &OfDevices| (value(config), set(config, first, *second).1);
        Self { values: ALL.iter().map(value).collect() }
    }

    /// An error if `config` asks for another value. One that is unset and has its default asks for nothing, and a fabric that runs,
    /// for whatever reason, may be asked for.
    pub(crate) fn check(&self, config: &Config, running: Option<Provider>) -> Result<(), ConfigError> {
        for ((first, second, value), (in_force, text)) in ALL.iter().zip(&self.values) {
            let asked = value(config);
            let needless = (*first == FABRIC && runs(config.fabric, running))
                || (OF_DATA_PORT.contains(first) && running != Some(Provider::Software));
            if asked == *in_force || needless {
                continue;
            }
            let (variable, asked_text) = set(config, first, *second);
            if asked_text.is_some() || asked != value(&Config::default()) {
                let asked = asked_text.unwrap_or(asked);
                return Err(refusal(variable, &asked, text.as_deref()));
            }
        }
        Ok(())
    }
}

fn text(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn runs(asked: FabricChoice, running: Option<Provider>) -> bool {
    match asked {
        FabricChoice::Auto => false,
        FabricChoice::Verbs => running == Some(Provider::Verbs),
        FabricChoice::Software => running == Some(Provider::Software),
    }
}

/// The variable that a setting comes from, with its text if one of the two is set.
fn set(config: &Config, first: &'static str, second: Option<&'static str>) -> (&'static str, Option<String>) {
    let find = |name: &str| config.settings.iter().find(|one| one.variable.name == name)?.text.clone();
    let found = |name: &'static str| find(name).map(|text| (name, Some(text)));
    found(first).or_else(|| found(second?)).unwrap_or((first, None))
}

fn refusal(variable: &'static str, asked: &str, in_force: Option<&str>) -> ConfigError {
    let in_force = in_force.map_or_else(|| " unset".to_owned(), |text| format!("={text}"));
    let place = if OF_DATA_PORT.contains(&variable) { " where the software fabric takes bytes" } else { "" };
    let text = format!(
        "{variable}={asked} has no effect any more{place}: this process has opened its devices already, with {variable}{in_force}. It opens \
         them once, for its first engine or for the first call that asks about devices: set the variable for that one, or in the \
         environment"
    );
    ConfigError { variable, text }
}

#[cfg(test)]
mod tests {
    use super::super::{Variable, groups};
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Config {
        Config::from_source(&|name| {
            settings.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned())
        })
    }

    fn is_of_devices(variable: &Variable) -> bool {
        variable.read_by.starts_with("fabric") || OF_DATA_PORT.contains(&variable.name)
    }

    /// What the table says about its readers is what this file goes by.
    #[test]
    fn each_variable_that_only_the_fabric_reads_is_here() {
        let of_devices =
            groups().into_iter().flat_map(|group| group.variables).filter(|one| is_of_devices(one));
        let mut expected: Vec<_> = of_devices.map(|variable| variable.name).collect();
        let mut here: Vec<_> =
            ALL.iter().flat_map(|(first, second, _)| [Some(*first), *second]).flatten().collect();
        expected.sort_unstable();
        here.sort_unstable();
        assert_eq!(here, expected);
    }

    #[test]
    fn another_example_of_each_is_refused_by_its_name() {
        let in_force = DeviceSettings::of(&Config::default());
        for variable in groups().iter().flat_map(|group| group.variables) {
            let asked = config(&[(variable.name, variable.example)]);
            // Of the providers, the one that the example of FLAGCX_P2P_FABRIC does not ask for, or the one with a data port.
            let running = if variable.name == FABRIC { Provider::Verbs } else { Provider::Software };
            let refused = in_force.check(&asked, Some(running)).err().map(|error| error.variable);
            let expected = is_of_devices(variable).then_some(variable.name);
            assert_eq!(refused, expected, "{}={}", variable.name, variable.example);
            DeviceSettings::of(&asked).check(&asked, None).unwrap();
            DeviceSettings::of(&asked).check(&Config::default(), None).unwrap();
        }
    }

    #[test]
    fn what_means_the_same_may_be_asked_for() {
        let in_force = DeviceSettings::of(&config(&[("FLAGCX_P2P_MTU", "1024"), ("FLAGCX_IB_TC", "8")]));
        let may = |settings: &[_], running| in_force.check(&config(settings), running).is_ok();
        assert!(may(
            &[("FLAGCX_P2P_MTU", "0x400"), ("FLAGCX_P2P_IB_TC", "8"), ("FLAGCX_P2P_PATH", "auto")],
            None
        ));
        assert!(may(&[(FABRIC, "software")], Some(Provider::Software)));
        assert!(may(&[(FABRIC, "verbs")], Some(Provider::Verbs)));
        assert!(!may(&[(FABRIC, "software")], Some(Provider::Verbs)));
        assert!(!may(&[(FABRIC, "verbs")], Some(Provider::Software)));
        assert!(!may(&[("FLAGCX_P2P_MTU", "4096")], None), "the default, asked for by name");
        assert!(may(&[("FLAGCX_P2P_AUTH_KEY_FILE", "/key")], Some(Provider::Verbs)), "there is no such port");
        let changed = Config { service_level: 3, ..Config::default() };
        let error = in_force.check(&changed, None).unwrap_err();
        assert!(error.text.starts_with("FLAGCX_IB_SL=3 has no effect any more: "), "{error}");
        assert!(error.text.contains("already, with FLAGCX_IB_SL unset. "), "{error}");
    }
}
