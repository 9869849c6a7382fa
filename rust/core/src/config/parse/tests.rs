//! Tests of the table and the parser.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::super::Hidden;
use super::*;

fn config_of(settings: &[(&str, &str)]) -> Config {
    Config::from_source(&|name| {
        settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

/// The typed fields only, as text.
fn fields(config: &Config) -> String {
    let mut config = config.clone();
    config.warnings.clear();
    config.settings.clear();
    format!("{config:?}")
}

fn all_variables() -> Vec<&'static Variable> {
    groups().iter().flat_map(|group| group.variables.iter().copied()).collect()
}

#[test]
fn exactly_the_variables_of_the_table_are_read_once_each() {
    let asked = RefCell::new(Vec::new());
    Config::from_source(&|name| {
        asked.borrow_mut().push(name.to_owned());
        None
    });
    let mut asked = asked.into_inner();
    asked.sort();
    let mut expected: Vec<_> = all_variables().iter().map(|variable| variable.name.to_owned()).collect();
    expected.extend(RETIRED.iter().map(|(name, _)| (*name).to_owned()));
    expected.sort();
    assert_eq!(asked, expected);
    assert_eq!(
        expected.iter().collect::<BTreeSet<_>>().len(),
        expected.len(),
        "a name is in the table twice"
    );
}

#[test]
fn every_variable_changes_a_field_and_is_documented() {
    let default = Config::default();
    for variable in all_variables() {
        let changed = config_of(&[(variable.name, variable.example)]);
        assert_eq!(changed.warnings(), [], "{}={}", variable.name, variable.example);
        assert_ne!(
            fields(&changed),
            fields(&default),
            "{}={} changes nothing",
            variable.name,
            variable.example
        );
        for text in [variable.read_by, variable.changes, variable.when] {
            assert!(!text.is_empty(), "{} lacks documentation", variable.name);
        }
    }
}

#[test]
fn limits_are_accepted_and_what_lies_beyond_gives_the_default() {
    let default = fields(&Config::default());
    for variable in all_variables() {
        let Kind::Integer { min, max, .. } = variable.kind else { continue };
        for number in [min, max] {
            let config = config_of(&[(variable.name, &number.to_string())]);
            assert!(
                config.warnings().is_empty() || variable.name == "FLAGCX_P2P_FRAGMENT_LIMIT",
                "{}={number}: {:?}",
                variable.name,
                config.warnings()
            );
        }
        for text in [(min - 1).to_string(), (max + 1).to_string(), "99999999999999999999".to_owned()] {
            let config = config_of(&[(variable.name, &text)]);
            assert_eq!(fields(&config), default, "{}={text}", variable.name);
            assert_eq!(config.warnings().len(), 1, "{}={text}", variable.name);
            assert_eq!(config.warnings()[0].severity, Severity::Info);
        }
    }
}

#[test]
fn defaults_are_those_of_the_original_engine() {
    let config = Config::default();
    assert_eq!((config.qps_per_conn, config.workers_per_pool, config.shard_count), (4, 4, 8));
    assert_eq!((config.cq_depth, config.max_wr_per_post, config.max_requests), (4096, 256, 256));
    assert_eq!((config.batch_poll_size, config.slice_size, config.fragment_limit), (64, 1 << 30, 4096));
    assert_eq!((config.max_sge, config.max_inline, config.mtu), (4, 64, 4096));
    assert_eq!((config.gid_index, config.traffic_class, config.retry_count), (None, None, 7));
    assert_eq!((config.p2p_gid_index, config.p2p_traffic_class, config.notif_max_peers), (-1, -1, 64));
    assert!(!config.dest_dev_affinity && config.warnings().is_empty() && config.check().is_ok());
}

#[test]
fn an_explicit_setting_wins_even_if_it_is_the_default() {
    let both = [("FLAGCX_P2P_GID_INDEX", "-1"), ("FLAGCX_IB_GID_INDEX", "3")];
    assert_eq!(config_of(&both).gid_index, None);
    assert_eq!(config_of(&both[1..]).gid_index, Some(3));
    let both = [("FLAGCX_P2P_RETRY_CNT", "7"), ("FLAGCX_IB_RETRY_CNT", "2")];
    assert_eq!(config_of(&both).retry_count, 7);
    assert_eq!(config_of(&both[1..]).retry_count, 2);
    let both = [("FLAGCX_P2P_IB_TC", "8"), ("FLAGCX_IB_TC", "106")];
    assert_eq!(config_of(&both).traffic_class, Some(8));
    assert_eq!(config_of(&both[1..]).traffic_class, Some(106));
    assert_eq!(config_of(&[("FLAGCX_P2P_IB_TC", "-1"), both[1]]).traffic_class, Some(106));
    assert_eq!(config_of(&[("FLAGCX_P2P_RETRY_CNT", "9"), ("FLAGCX_IB_RETRY_CNT", "2")]).retry_count, 2);
    assert_eq!(config_of(&[]).ib_port, None);
    assert_eq!(config_of(&[("FLAGCX_P2P_IB_PORT", "1")]).ib_port, Some(1));
    assert_eq!(config_of(&[("FLAGCX_IB_USE_INLINE", "0"), ("FLAGCX_P2P_MAX_INLINE", "64")]).max_inline, 64);
}

#[test]
fn numbers_that_depend_on_each_other_are_fitted() {
    let config = config_of(&[("FLAGCX_P2P_QPS_PER_CONN", "2"), ("FLAGCX_P2P_WORKERS_PER_POOL", "8")]);
    assert_eq!((config.qps_per_conn, config.workers_per_pool), (2, 2));
    let config = config_of(&[
        ("FLAGCX_P2P_QPS_PER_CONN", "8"),
        ("FLAGCX_P2P_WORKERS_PER_POOL", "6"),
        ("FLAGCX_P2P_SHARD_COUNT", "1"),
    ]);
    assert_eq!((config.workers_per_pool, config.shard_count), (6, 6));
    let small_slices = ("FLAGCX_P2P_SLICE_SIZE", "1000");
    assert_eq!(config_of(&[small_slices]).fragment_limit, 4096);
    assert_eq!(config_of(&[small_slices, ("FLAGCX_P2P_FRAGMENT_LIMIT", "1001")]).fragment_limit, 4096);
    assert_eq!(config_of(&[small_slices, ("FLAGCX_P2P_FRAGMENT_LIMIT", "1000")]).fragment_limit, 1000);
}

#[test]
fn a_wrong_mtu_is_warned_of() {
    for text in ["1500", "256", "0"] {
        let config = config_of(&[("FLAGCX_P2P_MTU", text)]);
        assert_eq!(config.mtu, 4096);
        assert_eq!(config.warnings()[0].severity, Severity::Warn);
    }
    assert_eq!(config_of(&[("FLAGCX_P2P_MTU", "0x400")]).mtu, 1024);
}

#[test]
fn a_malformed_restriction_keeps_the_engine_from_opening() {
    let cases = [
        ("FLAGCX_P2P_ALLOW", "10.0.0.0/33"),
        ("FLAGCX_P2P_ALLOW", "everyone"),
        ("FLAGCX_P2P_ALLOW", " , "),
        ("FLAGCX_P2P_BIND", "localhost"),
        ("FLAGCX_P2P_PORT_RANGE", "9-1"),
        ("FLAGCX_P2P_PORT_RANGE", "0-10"),
        ("FLAGCX_P2P_PORT_RANGE", "1-70000"),
        ("FLAGCX_P2P_ADVERTISE", "gate:0"),
        ("FLAGCX_P2P_ADVERTISE", "0.0.0.0"),
    ];
    for (name, text) in cases {
        let error = config_of(&[(name, text)]).check().unwrap_err();
        assert_eq!(error.variable, name);
        assert!(error.text.contains(text), "{}", error.text);
    }
    let config = config_of(&[("FLAGCX_P2P_AUTH_KEY_FILE", "/nonexistent")]);
    assert!(config.auth_key().is_err() && config.fabric_options().is_err());
}

#[test]
fn texts_are_parsed() {
    let config = config_of(&[
        ("FLAGCX_P2P_ALLOW", "10.0.0.0/8, 192.0.2.7,2001:db8::/32"),
        ("FLAGCX_P2P_BIND", "[::1]"),
        ("FLAGCX_P2P_PORT_RANGE", "20000-20010"),
        ("FLAGCX_P2P_ADVERTISE", "gate.example:80"),
        ("FLAGCX_P2P_FABRIC", "SOFTWARE"),
        ("FLAGCX_P2P_XFER_TIMEOUT_MS", "0"),
        ("FLAGCX_P2P_KEEPALIVE_MS", ""),
    ]);
    assert_eq!(config.allow.len(), 3);
    assert_eq!(config.bind, Some("::1".parse().unwrap()));
    assert_eq!(config.port_range, Some((20000, 20010)));
    assert_eq!(config.advertise.unwrap(), Advertise { host: "gate.example".to_owned(), port: Some(80) });
    assert_eq!(config.fabric, FabricChoice::Software);
    assert_eq!(config.xfer_timeout, None);
    assert_eq!(config.keepalive, Config::default().keepalive);
    assert_eq!(config_of(&[("FLAGCX_P2P_PORT_RANGE", "7777")]).port_range, Some((7777, 7777)));
}

#[test]
fn a_malformed_metrics_address_is_a_warning_and_no_endpoint() {
    let config = config_of(&[("FLAGCX_P2P_METRICS", "localhost:9400")]);
    assert_eq!(config.metrics, None);
    let [warning] = config.warnings() else { panic!("{:?}", config.warnings()) };
    assert_eq!((warning.severity, config.check()), (Severity::Warn, Ok(())));
    assert!(
        warning.text.contains("\"localhost:9400\"") && warning.text.contains("no endpoint"),
        "{}",
        warning.text
    );
    let config = config_of(&[("FLAGCX_P2P_METRICS", "[::1]:9400-9407")]);
    assert_eq!(config.metrics.unwrap().to_string(), "[::1]:9400-9407");
}

#[test]
fn an_unknown_word_keeps_the_engine_from_opening() {
    let config = config_of(&[("FLAGCX_P2P_FABRIC", "sofware")]);
    let error = config.check().unwrap_err();
    assert_eq!(error.variable, "FLAGCX_P2P_FABRIC");
    assert!(
        error.text.contains("\"sofware\"") && error.text.contains("auto, verbs, software"),
        "{}",
        error.text
    );
}

/// What any text is a value of, or what is looked at only when it is used.
const ANY_TEXT: &[&str] = &[
    "FLAGCX_P2P_IBVERBS",
    "FLAGCX_COMM_ID",
    "FLAGCX_P2P_FAULTS",
    "FLAGCX_P2P_AUTH_KEY_FILE",
    "FLAGCX_P2P_DIRECTORY",
    "FLAGCX_P2P_DIRECTORY_PASSWORD",
    "FLAGCX_P2P_DIRECTORY_PASSWORD_FILE",
    "FLAGCX_DEBUG",
    "FLAGCX_DEBUG_SUBSYS",
    "FLAGCX_DEBUG_FILE",
    "FLAGCX_TOPO_FILE",
];

#[test]
fn passwords_are_neither_listed_nor_shown() {
    let config = config_of(&[
        ("FLAGCX_P2P_DIRECTORY", "etcd://user:hunter2@192.0.2.9/p"),
        ("FLAGCX_P2P_DIRECTORY_PASSWORD", "hunter2"),
    ]);
    let password = config.directory_password.as_ref().map(Hidden::reveal);
    assert_eq!(password, Some("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    let texts: Vec<_> = config.settings().iter().filter_map(|setting| setting.text.as_deref()).collect();
    assert_eq!(texts, ["etcd://user:***@192.0.2.9/p", "***"]);
}

/// An invalid value keeps the engine from opening where the table says so, and is one line and the default elsewhere.
#[test]
fn nonsense_is_refused_or_pointed_out_by_every_variable() {
    for variable in all_variables() {
        if ANY_TEXT.contains(&variable.name) {
            continue;
        }
        for text in ["no such thing!", ",,", "?"] {
            let config = config_of(&[(variable.name, text)]);
            let warnings = config.warnings();
            assert_eq!(warnings.len(), 1, "{}={text}: {warnings:?}", variable.name);
            assert_eq!(warnings[0].severity == Severity::Fatal, variable.refuses, "{}={text}", variable.name);
            assert!(warnings[0].text.contains(variable.name) && warnings[0].text.contains(text));
            assert_eq!(config.check().is_err(), variable.refuses);
        }
    }
    for text in ["4 096", "12k", "089"] {
        assert_eq!(config_of(&[("FLAGCX_P2P_SPIN_US", text)]).warnings().len(), 1, "{text}");
    }
    for text in ["0x10", " 7 ", "010", "0"] {
        assert_eq!(config_of(&[("FLAGCX_P2P_SPIN_US", text)]).warnings(), [], "{text}");
    }
    for text in ["mlx5_0,", "^", "=,mlx5", "mlx5:x", "mlx 5"] {
        assert!(config_of(&[("FLAGCX_IB_HCA", text)]).check().is_err(), "{text}");
    }
    for text in ["=mlx5_0:1,mlx5_1", "^mlx5", "^=ib0:-1"] {
        assert!(config_of(&[("FLAGCX_IB_HCA", text)]).check().is_ok(), "{text}");
    }
}

#[test]
fn retired_variables_are_named() {
    let config = config_of(&[("FLAGCX_MR_SORTED_LOOKUP", "1")]);
    assert!(config.warnings()[0].text.contains("no effect"));
}

proptest::proptest! {
    #[test]
    fn no_value_panics(text: String) {
        let config = Config::from_source(&|_| Some(text.clone()));
        let _ = (config.check(), config.auth_key());
    }
}
