//! Several threads close one engine.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::mpsc::channel;

use super::test_pair::TestPair;
use super::*;
use crate::fabric::Opcode;
use crate::transfer::{Iov, TransferId};

const LIMIT: Duration = Duration::from_secs(20);

fn start(pair: &TestPair) -> TransferId {
    let remote = pair.here.describe_remote(pair.target.address(), 4096).unwrap();
    let iov = Iov { local: pair.source.address(), length: 4096, region: None, remote };
    pair.here.submit(Opcode::Write, &[iov]).unwrap()
}

#[test]
fn a_second_thread_waits_for_the_first() {
    let pair = TestPair::new(&[], "");
    let Turn::Own(first) = pair.client.closing.begin(Instant::now()) else {
        unreachable!("nothing closes it")
    };
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pair.client.close();
            tell.send(()).unwrap();
        });
        assert!(told.recv_timeout(Duration::from_millis(100)).is_err(), "it has not waited");
        assert!(pair.here.is_usable(), "it has closed what the first is to close");
        drop(first);
        told.recv_timeout(LIMIT).unwrap();
    });
    assert!(!pair.here.is_usable());
}

#[test]
fn callbacks_of_the_engine_do_not_wait_for_the_thread_that_waits_for_them() {
    let pair = TestPair::new(&[], "delay=us:1000");
    let (tell, told) = channel();
    let first = [&pair.client, &pair.server].map(|engine| engine.closing.begin(Instant::now()));
    let close = |engine: &Arc<Engine>| {
        let (engine, tell) = (Arc::downgrade(engine), Mutex::new(tell.clone()));
        move || {
            if let Some(engine) = engine.upgrade() {
                engine.close();
                tell.lock().unwrap().send(()).unwrap();
            }
        }
    };
    // On the thread of a worker, on that of the event loop, and on the one that closes.
    let of_client = close(&pair.client);
    pair.here.call_at_end(start(&pair), move |_| of_client());
    told.recv_timeout(LIMIT).unwrap();
    assert!(pair.server.on_notification(close(&pair.server)));
    pair.here.send_notification_bytes(b"name", b"content").unwrap();
    told.recv_timeout(LIMIT).unwrap();
    close(&pair.client)();
    told.recv_timeout(LIMIT).unwrap();
    drop(first);
}

#[test]
fn a_closed_engine_begins_nothing_and_says_so() {
    let pair = TestPair::new(&[], "");
    let (host, port) = (pair.server.address().to_string(), pair.server.rpc_port().unwrap());
    let engine = &pair.client;
    engine.close();
    let memory = [0_u8; 4096];
    let register = |options| {
        // SAFETY: the memory outlives the engine, which is closed.
        #[allow(unsafe_code, reason = "registers memory of this function")]
        unsafe {
            engine.register(memory.as_ptr() as u64, 4096, options)
        }
    };
    let refused = [
        register(RegisterOptions::default()).unwrap_err(),
        engine.allocate(4096).unwrap_err(),
        engine.allocate_at_address(4096, AllocateOptions::default(), false).unwrap_err(),
        engine.connect(&host, port, -1, false).unwrap_err(),
        engine.session(&format!("{host}:{port}")).unwrap_err(),
        engine.start_rpc_server().unwrap_err(),
        engine.metadata().unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, EngineError::Closed { .. }), "{error}");
    }
    assert!(matches!(engine.accept(), Err(EngineError::Unavailable(_))));
    assert!(pair.server.metadata().is_ok());
}

#[test]
fn a_connect_during_which_the_engine_closes_says_so() {
    let pair = TestPair::new(&[], "");
    // Accepts, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let client = &pair.client;
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| client.connect("127.0.0.1", port, -1, false));
        let _peer = silent.accept().unwrap();
        client.close();
        let error = connecting.join().unwrap().unwrap_err();
        assert!(matches!(error, EngineError::Closed { .. }), "{error}");
    });
}
