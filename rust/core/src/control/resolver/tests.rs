//! Look-ups that hang, fail and answer late; none of them queries a name server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::*;

const SHORT: Duration = Duration::from_millis(50);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn shortly() -> Instant {
    Instant::now() + SHORT
}

fn address(last: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, last), 0).into()
}

/// Waits until `condition` holds.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Blocks look-ups until it is opened.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    passing: AtomicUsize,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        self.passing.fetch_add(1, Ordering::SeqCst);
        let _open = self.opened.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap();
    }

    /// Look-ups that have come so far.
    fn passing(&self) -> usize {
        self.passing.load(Ordering::SeqCst)
    }
}

/// A resolver that hangs until the gate is opened. `quick` names do not.
fn gated() -> (Arc<Resolver>, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let of_resolver = Arc::clone(&gate);
    let look_up = move |name: &str| {
        if !name.starts_with("quick") {
            of_resolver.pass();
        }
        Ok(vec![address(1)])
    };
    (Arc::new(Resolver::new(look_up)), gate)
}

/// Begins look-ups of `count` names that hang.
fn hang(resolver: &Resolver, gate: &Gate, count: usize) {
    for index in 0..count {
        let error = resolver.resolve(&format!("hanging-{index}"), 1, Instant::now(), None).unwrap_err();
        assert!(matches!(error, ResolveError::Silent { .. }), "{error}");
    }
    eventually("the look-ups begin", || gate.passing() == count);
}

#[test]
fn a_resolver_that_never_answers_costs_each_caller_its_own_deadline() {
    let (resolver, gate) = gated();
    let start = Instant::now();
    let error = resolver.resolve("node", 1, shortly(), None).unwrap_err();
    assert!((50..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let text = error.to_string();
    assert!(
        text.contains("\"node\"") && text.contains("no answer") && text.contains("resolv.conf"),
        "{text}"
    );
    // The next caller joins the look-up, and its error has the time since the start.
    let ResolveError::Silent { waited, running, .. } =
        resolver.resolve("node", 1, shortly(), None).unwrap_err()
    else {
        panic!("not silent")
    };
    assert!(running > waited && running >= SHORT * 2, "{running:?}, {waited:?}");
    assert_eq!(gate.passing(), 1);
    // A late answer has no callers and is not cached.
    gate.open();
    eventually("nothing is left", || resolver.0.lock().threads == 0);
    assert!(resolver.0.lock().names.is_empty());
    assert_eq!(resolver.resolve("node", 7, soon(), None), Ok(vec!["192.0.2.1:7".parse().unwrap()]));
}

#[test]
fn callers_of_one_name_share_its_look_up() {
    let (resolver, gate) = gated();
    let callers: Vec<_> = (1..=8)
        .map(|port| {
            let resolver = Arc::clone(&resolver);
            thread::spawn(move || resolver.resolve("node", port, soon(), None).unwrap())
        })
        .collect();
    eventually("all have asked", || {
        resolver.0.lock().names.get("node").is_some_and(|name| name.callers == 8)
    });
    gate.open();
    for (port, caller) in (1..=8).zip(callers) {
        assert_eq!(caller.join().unwrap(), [SocketAddr::new(address(1).ip(), port)]);
    }
    assert_eq!(gate.passing(), 1);
}

#[test]
fn the_seventeenth_name_waits_for_a_place() {
    let (resolver, gate) = gated();
    hang(&resolver, &gate, MAX_THREADS);
    let start = Instant::now();
    let error = resolver.resolve("quick", 1, shortly(), None).unwrap_err();
    assert!((50..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert!(matches!(error, ResolveError::Busy { limit: MAX_THREADS, .. }), "{error}");
    assert!(error.to_string().contains("16 other names"), "{error}");
    // It is removed with its caller.
    assert!(resolver.0.lock().waiting.is_empty());
    assert_eq!(resolver.0.lock().names.len(), MAX_THREADS);

    // One that is still waiting when a place becomes free gets it.
    let waiting = {
        let resolver = Arc::clone(&resolver);
        thread::spawn(move || resolver.resolve("quick", 1, soon(), None))
    };
    eventually("it waits", || resolver.0.lock().waiting.len() == 1);
    gate.open();
    assert!(waiting.join().unwrap().is_ok());
    eventually("nothing is left", || resolver.0.lock().threads == 0);
    assert!(resolver.0.lock().names.is_empty());
}

#[test]
fn other_names_and_numbers_do_not_wait_for_those_that_hang() {
    let (resolver, gate) = gated();
    hang(&resolver, &gate, MAX_THREADS - 1);
    assert!(resolver.resolve("quick", 1, soon(), None).is_ok());
    gate.open();
    // The resolver of the process is not used.
    let long_ago = Instant::now();
    assert_eq!(resolve("192.0.2.9", 9, long_ago, None), Ok(vec!["192.0.2.9:9".parse().unwrap()]));
    assert!(matches!(resolve("1.2.3", 9, long_ago, None), Err(ResolveError::Host(_))));
}

#[test]
fn an_abort_ends_the_wait() {
    let (resolver, gate) = gated();
    let abort = Abort::new().unwrap();
    let waiting = {
        let (resolver, abort) = (Arc::clone(&resolver), abort.clone());
        thread::spawn(move || resolver.resolve("node", 1, soon(), Some(&abort)))
    };
    eventually("it has asked", || gate.passing() == 1);
    abort.abort();
    assert_eq!(waiting.join().unwrap(), Err(ResolveError::Aborted));
    gate.open();
}

#[test]
fn the_resolvers_own_error_is_reported() {
    let resolver = Resolver::new(|name: &str| match name {
        "empty" => Ok(Vec::new()),
        _ => Err("Temporary failure in name resolution (EAI_AGAIN, -3)".to_owned()),
    });
    let error = resolver.resolve("unknown", 1, soon(), None).unwrap_err().to_string();
    for part in ["\"unknown\"", "EAI_AGAIN, -3", " ms", "getent"] {
        assert!(error.contains(part), "{error}");
    }
    let error = resolver.resolve("empty", 1, soon(), None).unwrap_err().to_string();
    assert!(error.contains("\"empty\"") && error.contains("it has no address"), "{error}");
    let error = resolver.resolve(&"n".repeat(1 << 20), 1, soon(), None).unwrap_err().to_string();
    assert!(error.contains("1048576") && error.len() < 200, "{error}");
}

#[test]
fn addresses_come_once_and_not_too_many() {
    let resolver = Resolver::new(|_: &str| Ok((0..400).map(|index| address((index / 2) as u8)).collect()));
    let found = resolver.resolve("node", 1, soon(), None).unwrap();
    let expected: Vec<_> =
        (0..MAX_ADDRESSES).map(|index| SocketAddr::new(address(index as u8).ip(), 1)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_forked_child_does_not_wait_for_threads_that_it_does_not_have() {
    let (resolver, gate) = gated();
    hang(&resolver, &gate, MAX_THREADS);
    resolver.0.state.lock().unwrap().process = 0;
    assert!(resolver.resolve("quick", 1, soon(), None).is_ok());
    assert!(resolver.0.lock().names.is_empty());
}
