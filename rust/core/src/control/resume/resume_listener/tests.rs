use std::net::SocketAddr;

use super::super::{Resumed, Way, resume};
use super::*;
use crate::control::wire::SocketKind;
use crate::control::{Advertised, connect};
use crate::events::run_blocking;

fn directly(target: SocketAddr) -> Way {
    Way { source: None, target }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn at_loopback(advertised: Option<Advertised>) -> LocalAddress {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    LocalAddress { bind: local, own: local, reason: String::new(), advertised }
}

struct Bench {
    listener: Arc<ResumeListener>,
    entry: Arc<ResumeEntry>,
    offer: ResumeOffer,
}

impl Bench {
    fn new(psk: Option<&AuthKey>) -> Self {
        let setting = |name: &str| (name == "FLAGCX_P2P_CONTROL_REDIAL").then(|| "60000".to_owned());
        let config = Config::from_source(&setting);
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listener = ResumeListener::open(&config, &at_loopback(None)).unwrap();
        let entry = listener.add(psk, &Arc::default()).unwrap();
        let offer = listener.offer(&entry, local);
        Self { listener, entry, offer }
    }

    fn target(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.listener.port))
    }

    /// Dials as the leader does, and answers as the follower does, if the request is put.
    fn dial(
        &self,
        name: u64,
        generation: u64,
        psk: Option<&AuthKey>,
        token: &[u8; 32],
    ) -> Result<Resumed, ResumeError> {
        let target = self.target();
        std::thread::scope(|scope| {
            let dialling = scope.spawn(move || {
                let waiter = Waiter::blocking(None);
                run_blocking(resume(
                    &directly(target),
                    (name, generation),
                    (psk, token),
                    17,
                    (soon(), None),
                    &waiter,
                ))
            });
            while !dialling.is_finished() {
                if let Some(offered) = self.entry.take() {
                    let Offered::Channel { stream, received, proof } = offered else { panic!("{offered:?}") };
                    assert_eq!(received, 17);
                    let greeting = [&proof[..], &23_u64.to_le_bytes()].concat();
                    stream.write_all_by(&greeting, soon()).unwrap();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            dialling.join().unwrap()
        })
    }
}

#[test]
fn the_leader_is_recognised_and_others_are_not() {
    let (key, other) = (AuthKey::new(b"key"), AuthKey::new(b"other"));
    for psk in [None, Some(&key)] {
        let bench = Bench::new(psk);
        let ResumeOffer { name, token, .. } = bench.offer.clone();
        let resumed = bench.dial(name, 1, psk, &token).unwrap();
        assert_eq!(resumed.received, 23);
        let refused = |answer: Result<Resumed, ResumeError>| matches!(answer, Err(ResumeError::Refused));
        assert!(refused(bench.dial(name, 1, psk, &token)), "a generation that has been");
        assert!(refused(bench.dial(name, 0, psk, &token)), "an older one");
        assert!(refused(bench.dial(name, 2, psk, &[0; 32])), "another token");
        assert!(refused(bench.dial(name ^ 1, 2, psk, &token)), "a name that is not known");
        assert!(refused(bench.dial(name, 2, Some(&other), &token)), "another key");
        assert!(refused(bench.dial(name, 2, if psk.is_some() { None } else { Some(&key) }, &token)));
        assert!(bench.dial(name, 2, psk, &token).is_ok(), "none of them has taken it");
    }
}

/// By a follower of which the connection has ended, and by a leader that dials for that alone.
#[test]
fn the_end_of_the_connection_is_told_to_its_peer_alone() {
    let key = AuthKey::new(b"key");
    let Bench { listener, entry, offer: ResumeOffer { name, token, .. } } = Bench::new(Some(&key));
    let way = directly(SocketAddr::from(([127, 0, 0, 1], listener.port)));
    let dial = |generation: u64, token: &[u8; 32], received: u64| {
        let waiter = Waiter::blocking(None);
        let secret = (Some(&key), token);
        run_blocking(resume(&way, (name, generation), secret, received, (soon(), None), &waiter)).unwrap_err()
    };
    assert!(matches!(dial(1, &[0; 32], ENDED), ResumeError::Refused) && entry.take().is_none());
    assert!(matches!(dial(1, &token, ENDED), ResumeError::Ended));
    assert!(matches!(entry.take(), Some(Offered::Ended)));
    assert!(matches!(dial(1, &token, ENDED), ResumeError::Refused), "a generation that has been");
    drop(entry);
    assert!(matches!(dial(2, &token, 17), ResumeError::Ended));
    assert!(matches!(dial(2, &token, ENDED), ResumeError::Ended), "also if both have ended it");
    assert!(matches!(dial(3, &[0; 32], 17), ResumeError::Refused));
}

#[test]
fn something_else_that_answers_is_not_believed() {
    let listener = Listener::bind(Ipv4Addr::LOCALHOST.into(), None, &Abort::new().unwrap()).unwrap();
    let target = listener.local();
    let dialling = std::thread::spawn(move || {
        let waiter = Waiter::blocking(None);
        run_blocking(resume(&directly(target), (1, 1), (None, &[1; 32]), 0, (soon(), None), &waiter))
    });
    let stream = listener.accept_by(Some(soon())).unwrap();
    stream.write_all_by(&[9; 16 + 32 + 8], soon()).unwrap();
    assert!(matches!(dialling.join().unwrap(), Err(ResumeError::NotThePeer(_))));
}

/// Silent clients, those that say something else, and those that leave: the leader is served among them.
#[test]
fn a_flood_keeps_the_leader_from_nothing() {
    let bench = Bench::new(None);
    let ResumeOffer { name, token, .. } = bench.offer.clone();
    let mut held = Vec::new();
    for number in 0..40_u64 {
        let stream = connect(bench.target(), soon(), None).unwrap();
        match number % 4 {
            0 => held.push(stream),
            1 => drop(stream.write_all_by(b"GET / HTTP/1.1\r\n\r\n--------------------------", soon())),
            2 => {
                let request =
                    [&SocketKind::Resume.encode()[..], &name.to_le_bytes(), &number.to_le_bytes(), &[3; 16]]
                        .concat();
                stream.write_all_by(&request, soon()).unwrap();
                let _ = stream.write_all_by(&[5; 40], soon());
                held.push(stream);
            }
            _ => {}
        }
    }
    assert!(bench.dial(name, 1, None, &token).is_ok());
    drop(held);
}

/// More silent clients than there are places.
#[test]
fn silent_clients_do_not_hold_all_places() {
    let bench = Bench::new(None);
    let ResumeOffer { name, token, .. } = bench.offer.clone();
    let held: Vec<_> = (0..200).map(|_| connect(bench.target(), soon(), None).unwrap()).collect();
    let begin = Instant::now();
    assert!(bench.dial(name, 1, None, &token).is_ok());
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    drop(held);
}

#[test]
fn addresses_are_told_once_and_of_one_kind() {
    let bench = Bench::new(None);
    assert_eq!(bench.offer.addresses, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    assert_eq!(bench.offer.port, bench.listener.port);
    let outside = bench.listener.offer(&bench.entry, "192.0.2.7".parse().unwrap());
    assert_eq!(outside.addresses[0].to_string(), "192.0.2.7");
    assert!(outside.addresses.iter().all(|address| address.is_ipv4() && !address.is_loopback()));
    let settings = [("FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES", "127.0.0.2, 127.0.0.3")];
    let config = Config::from_source(&|name| {
        settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    });
    let listener = ResumeListener::open(&config, &at_loopback(None)).unwrap();
    let told = listener.offer(&listener.add(None, &Arc::default()).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(
        told.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.2", "127.0.0.3"]
    );
}

#[test]
fn where_it_is_bound_decides_what_is_told() {
    let config = Config::from_source(&|name| (name == "FLAGCX_P2P_BIND").then(|| "127.0.0.1".to_owned()));
    let forwarder = Advertised { ip: "203.0.113.7".parse().unwrap(), port: None };
    let listener = ResumeListener::open(&config, &at_loopback(Some(forwarder))).unwrap();
    let told = listener.offer(&listener.add(None, &Arc::default()).unwrap(), "192.0.2.7".parse().unwrap());
    assert_eq!(
        told.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["203.0.113.7", "127.0.0.1"]
    );
}

mod any_bytes {
    use proptest::prelude::*;

    use super::super::super::exchange::{REQUEST_SIZE, ResumeRequest};

    proptest! {
        #[test]
        fn a_request_is_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), REQUEST_SIZE)) {
            let _ = ResumeRequest::decode(&bytes.try_into().unwrap());
        }
    }
}
