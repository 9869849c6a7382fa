//! The original engine, scripted byte for byte, and an engine of ours with eight NICs: it gets one rail, and every byte that it would get of
//! an engine with one NIC.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod nullverbs;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::control::wire::Features;
use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions};
use nullverbs::Standin;
use support::eventually;

const MAGIC: [u8; 8] = [0x6c, 0x9d, 0x4b, 0xfc, 0xf2, 0xb9, 0x4a, 0x56];
const META: [u8; 16] = [6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
const RECORD: usize = 40;
/// Lanes of the original: fewer than ours, so that both ends have as many.
const LANES: u8 = 2;

/// The bytes of an engine, each message with its name.
type Transcript = Vec<(&'static str, Vec<u8>)>;

struct Script {
    heard: Transcript,
}

impl Script {
    fn hear(&mut self, from: &mut TcpStream, what: &'static str, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        from.read_exact(&mut bytes).unwrap();
        self.heard.push((what, bytes.clone()));
        bytes
    }

    /// Nothing more comes over a socket, for a while in which rails are asked for, or it is closed.
    fn hear_the_end(&mut self, from: &mut TcpStream, what: &'static str) {
        from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut more = Vec::new();
        match from.take(1 << 16).read_to_end(&mut more) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{what}"),
        }
        self.heard.push((what, more));
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(support::LIMIT)).unwrap();
    stream
}

fn engine(standin: &Standin) -> Arc<Engine> {
    let options =
        FabricOptions { choice: FabricChoice::Verbs, verbs: standin.options(), ..FabricOptions::default() };
    let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
    let settings = [("FLAGCX_P2P_FABRIC", "verbs"), ("FLAGCX_P2P_BIND", "127.0.0.1")];
    Engine::open(support::config(&settings), EngineOptions { gpu_index: 0, devices }).unwrap()
}

fn frame(tag: u8, payload: &[u8]) -> Vec<u8> {
    [&[tag, 0, 0, 0], &(payload.len() as u32).to_le_bytes()[..], payload].concat()
}

fn handle(port: u16) -> Vec<u8> {
    let mut handle = vec![0; 128];
    handle[0] = 2;
    handle[2..4].copy_from_slice(&port.to_be_bytes());
    handle[4..8].copy_from_slice(&[127, 0, 0, 1]);
    handle[32..40].copy_from_slice(&MAGIC);
    handle
}

/// The records of an engine, as if they were another one's.
fn other_records(records: &[u8]) -> Vec<u8> {
    let mut records = records.to_vec();
    records.chunks_mut(RECORD).for_each(|record| record[0] ^= 0x80);
    records
}

/// One rail, also when all are asked for.
fn expect_one_rail(connection: &Connection) {
    connection.add_rails_now();
    assert_eq!(connection.rails().len(), 1, "{:#?}", connection.rails());
}

/// The original is connected to. All that it is sent, and the lane records.
fn connected_to(engine: &Arc<Engine>) -> (Transcript, Vec<u8>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connecting = {
        let engine = Arc::clone(engine);
        thread::spawn(move || engine.connect("127.0.0.1", port, 0, false).unwrap())
    };
    let mut script = Script { heard: Vec::new() };
    let mut bootstrap = patient(listener.accept().unwrap().0);
    script.hear(&mut bootstrap, "preamble", 12);
    let lanes = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    script.hear(&mut bootstrap, "handle", 8 + 128);
    bootstrap.write_all(&frame(4, &handle(lanes.local_addr().unwrap().port()))).unwrap();
    let mut lane = patient(lanes.accept().unwrap().0);
    script.hear(&mut lane, "lanes", 12 + 4);
    lane.write_all(&[LANES, 0, 0, 0]).unwrap();
    let records = script.hear(&mut lane, "records", usize::from(LANES) * RECORD);
    lane.write_all(&other_records(&records)).unwrap();
    script.hear(&mut lane, "ready", 4);
    lane.write_all(&[1, 0, 0, 0]).unwrap();
    script.hear(&mut bootstrap, "meta", 8 + 16);
    bootstrap.write_all(&frame(1, &META)).unwrap();
    script.hear(&mut bootstrap, "same process", 8 + 4);
    bootstrap.write_all(&frame(2, &[1, 0, 0, 0])).unwrap();
    script.hear(&mut bootstrap, "regions", 8);
    bootstrap.write_all(&frame(3, &[])).unwrap();
    let connection = connecting.join().unwrap();
    expect_one_rail(&connection);
    script.hear_the_end(&mut bootstrap, "control socket");
    script.hear_the_end(&mut lane, "lane socket");
    expect_one_rail(&connection);
    drop((bootstrap, lane));
    eventually("the connection ends with the peer", || !connection.is_usable());
    (script.heard, records)
}

/// The original connects, with lanes like `records`.
fn connects(engine: &Arc<Engine>, records: &[u8]) -> Transcript {
    let port = engine.rpc_port().unwrap();
    let accepting = {
        let engine = Arc::clone(engine);
        thread::spawn(move || engine.accept().unwrap().connection)
    };
    let mut script = Script { heard: Vec::new() };
    let connect = |port| patient(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap());
    let mut bootstrap = connect(port);
    bootstrap.write_all(&[&MAGIC[..], &[1, 0, 0, 0], &frame(4, &handle(1))].concat()).unwrap();
    let answer = script.hear(&mut bootstrap, "handle", 8 + 128);
    let mut lane = connect(u16::from_be_bytes([answer[10], answer[11]]));
    lane.write_all(&[&MAGIC[..], &[4, 0, 0, 0], &[LANES, 0, 0, 0]].concat()).unwrap();
    script.hear(&mut lane, "lanes", 4);
    lane.write_all(&other_records(records)).unwrap();
    script.hear(&mut lane, "records", usize::from(LANES) * RECORD);
    lane.write_all(&[1, 0, 0, 0]).unwrap();
    script.hear(&mut lane, "ready", 4);
    bootstrap.write_all(&frame(1, &META)).unwrap();
    script.hear(&mut bootstrap, "meta", 8 + 16);
    bootstrap.write_all(&frame(2, &[1, 0, 0, 0])).unwrap();
    script.hear(&mut bootstrap, "same process", 8 + 4);
    bootstrap.write_all(&frame(3, &[])).unwrap();
    script.hear(&mut bootstrap, "regions", 8);
    let connection = accepting.join().unwrap();
    expect_one_rail(&connection);
    script.hear_the_end(&mut bootstrap, "control socket");
    script.hear_the_end(&mut lane, "lane socket");
    expect_one_rail(&connection);
    drop((bootstrap, lane));
    eventually("the connection ends with the peer", || !connection.is_usable());
    script.heard
}

/// Both roles of the original, with a new engine.
fn transcripts(devices: u64) -> [Transcript; 2] {
    let standin = Standin::new(&[("devs", devices)]);
    let engine = engine(&standin);
    let (to_responder, records) = connected_to(&engine);
    let to_initiator = connects(&engine, &records);
    engine.close();
    [to_responder, to_initiator]
}

/// The bytes that are not the same in all of these, of each message.
fn varying(runs: &[Transcript]) -> Vec<Vec<bool>> {
    let mut varying: Vec<_> = runs[0].iter().map(|(_, bytes)| vec![false; bytes.len()]).collect();
    for run in &runs[1..] {
        for ((of_message, (name, bytes)), (_, first)) in varying.iter_mut().zip(run).zip(&runs[0]) {
            assert_eq!(bytes.len(), first.len(), "{name}");
            of_message.iter_mut().zip(bytes.iter().zip(first)).for_each(|(varies, (a, b))| *varies |= a != b);
        }
    }
    varying
}

#[test]
fn it_gets_of_an_engine_with_eight_nics_what_it_gets_of_one_with_one() {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Ports, numbers of queue pairs, tokens: what differs between engines with one NIC.
    let of_one: Vec<_> = (0..4).map(|_| transcripts(1)).collect();
    let of_eight = transcripts(8);
    let mut offers = 0;
    for (role, of_eight) in of_eight.iter().enumerate() {
        let runs: Vec<_> = of_one.iter().map(|both| both[role].clone()).collect();
        let varying = varying(&runs);
        for (((name, bytes), (_, first)), varies) in of_eight.iter().zip(&runs[0]).zip(varying) {
            assert_eq!(bytes.len(), first.len(), "role {role}: {name}");
            let other: Vec<_> = (0..bytes.len())
                .filter(|at| !varies[*at] && bytes[*at] != first[*at])
                .map(|at| (at, first[at] ^ bytes[at]))
                .collect();
            // What an engine offers is in the part of its handle that the original does not read.
            let offered: Vec<_> =
                (0..4).map(|byte| (Features::RAILS >> (8 * byte)) as u8).filter(|byte| *byte != 0).collect();
            let is_offer =
                *name == "handle" && other.iter().all(|(at, bits)| *at >= 48 && offered.contains(bits));
            assert!(other.is_empty() || (is_offer && other.len() == 1), "role {role}: {name}: {other:?}");
            offers += other.len();
        }
    }
    assert_eq!(offers, 2, "the engine has eight NICs and does not say so");
}
