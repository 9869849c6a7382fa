//! Addresses that an engine cannot announce, listen on or reach: each error names the address, its origin, and what
//! to set.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod support;

use std::net::TcpListener;

use flagcx_p2p::internals::engine::{Engine, EngineOptions};

#[test]
fn an_advertised_host_without_an_address_keeps_the_engine_from_opening() {
    let open = |advertise: &str| {
        let config = support::config(&[("FLAGCX_P2P_ADVERTISE", advertise)]);
        let devices = Some(support::devices(&support::config(&[])));
        Engine::open(config, EngineOptions { gpu_index: 0, devices }).map(|engine| engine.metadata().unwrap())
    };
    let error = open("no-such-host.invalid:80").unwrap_err().to_string();
    assert!(error.contains("FLAGCX_P2P_ADVERTISE=no-such-host.invalid: cannot resolve"), "{error}");
    let error = open("gate:http").unwrap_err().to_string();
    assert!(error.contains("FLAGCX_P2P_ADVERTISE=\"gate:http\": expected host, host:port"), "{error}");
    assert!(open("203.0.113.7:7000").unwrap().starts_with("203.0.113.7:7000?0?"));
    assert!(open("[2001:db8::7]:7000").unwrap().starts_with("[2001:db8::7]:7000?0?"));
    assert!(open("localhost").unwrap().starts_with("127.0.0.1:"), "the family that is listened on");
}

#[test]
fn a_range_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let range = format!("{port}-{port}");
    let here = [("FLAGCX_P2P_FABRIC", "software"), ("FLAGCX_P2P_BIND", "127.0.0.1")];
    let engine = support::engine(&[&here[..], &[("FLAGCX_P2P_PORT_RANGE", &range)]].concat());
    for error in [engine.metadata().unwrap_err(), engine.accept().unwrap_err()] {
        let text = error.to_string();
        assert!(text.contains(&format!("every port of FLAGCX_P2P_PORT_RANGE={range} is in use")), "{text}");
        assert!(text.contains("by listeners of this process"), "{text}");
    }
    // The data listener is opened with the first connection.
    let server = support::engine(&here);
    server.start_rpc_server().unwrap();
    let error = engine.connect("127.0.0.1", server.rpc_port().unwrap(), 0, false).unwrap_err().to_string();
    assert!(error.contains(&format!("FLAGCX_P2P_PORT_RANGE={range}")), "{error}");
}

#[test]
fn an_address_that_cannot_be_reached_is_named_with_its_origin() {
    let engine = support::engine(&[("FLAGCX_P2P_CONNECT_TIMEOUT_MS", "500")]);
    let connect = |host| engine.connect(host, 1, 0, false).unwrap_err().to_string();
    let given = connect("127.0.0.1");
    assert!(given.contains("127.0.0.1:1 refused"), "{given}");
    assert!(given.contains("the address that was given"), "{given}");
    let looked_up = connect("localhost");
    assert!(looked_up.contains("127.0.0.1:1 refused"), "{looked_up}");
    assert!(looked_up.contains("looked up for \"localhost\""), "{looked_up}");
}
