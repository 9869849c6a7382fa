//! The list of devices that the engines of a process share.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is how a test fails")]

mod support;

use std::net::{IpAddr, Ipv6Addr};

use flagcx_p2p::internals::engine::{self, Engine, EngineError, EngineOptions};
use flagcx_p2p::internals::fabric::Provider;

/// One test, for the list is made once.
#[test]
fn the_first_caller_for_the_devices_does_not_decide_how_they_are_reached() {
    engines_without_a_device_say_why();

    // As tools do, which look at the devices before there is an engine.
    let config = support::config(&[("FLAGCX_P2P_FABRIC", "software"), ("FLAGCX_P2P_BIND", "0.0.0.0")]);
    let list = engine::devices(&config).unwrap();
    if list.selection().provider != Some(Provider::Software) {
        return println!("skipped: this machine has RDMA devices, which listen for nothing");
    }
    let engine = Engine::open(config, EngineOptions::default()).unwrap();
    assert!(!engine.address().is_unspecified());
    let listening = Ipv6Addr::from(engine.device().unwrap().port().unwrap().gid);
    assert_eq!(IpAddr::V6(listening).to_canonical(), engine.address());

    what_comes_too_late_is_refused();
}

fn what_comes_too_late_is_refused() {
    for (name, text) in [
        ("FLAGCX_P2P_FABRIC", "verbs"),
        ("FLAGCX_P2P_PATH", "tcp"),
        ("FLAGCX_IB_HCA", "mlx5_1"),
        ("FLAGCX_P2P_ALLOW", "127.0.0.1"),
    ] {
        let error = Engine::open(support::config(&[(name, text)]), EngineOptions::default()).unwrap_err();
        assert!(matches!(&error, EngineError::Config(error) if error.variable == name), "{error:?}");
        assert!(error.to_string().starts_with(&format!("{name}={text} has no effect any more")), "{error}");
    }
    // What belongs to an engine, and what is open already, may be asked for.
    for (name, text) in [("FLAGCX_P2P_QPS_PER_CONN", "2"), ("FLAGCX_P2P_FABRIC", "software")] {
        let engine = Engine::open(support::config(&[(name, text)]), EngineOptions::default()).unwrap();
        assert!(engine.device().is_some());
    }
}

fn engines_without_a_device_say_why() {
    let config = support::config(&[("FLAGCX_P2P_FABRIC", "verbs")]);
    let engine = match Engine::open(config, EngineOptions::default()) {
        Ok(engine) if engine.device().is_none() => engine,
        Ok(_) => return println!("not tested: an engine without a device: there is one"),
        Err(error) => return println!("not tested: an engine without a device: {error}"),
    };
    assert!(engine.metadata().is_ok());
    let error = engine.allocate(4096).unwrap_err().to_string();
    let reason = error.strip_prefix("this engine has no device: ").unwrap_or_default();
    assert!(reason.contains("RDMA") || reason.contains("verbs"), "{error}");
}
