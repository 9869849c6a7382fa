//! GPU memory over a NIC between two processes: only where `GPU_SUITE_NIC` names a port, as in `mlx5_0:1`. `./x firsthost` does
//! so for each pair of a port and a GPU.

use std::time::Instant;

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange};

use super::calls::finish;
use super::group::Group;
use super::memory::{Kind, Registered, keeps};
use super::two_processes::{LENGTH, Peer, sum};
use crate::support::{self, pattern};

/// In the environment: the port.
pub const NIC: &str = "GPU_SUITE_NIC";

const ROUNDS: usize = 200;

/// Settings of the engines, for the port if there is one.
pub fn settings() -> Vec<(&'static str, String)> {
    let port = std::env::var(NIC).ok();
    port.map_or_else(Vec::new, |port| {
        vec![("FLAGCX_P2P_FABRIC", "verbs".to_owned()), ("FLAGCX_IB_HCA", format!("={port}"))]
    })
}

pub fn engine() -> std::sync::Arc<flagcx_p2p::internals::engine::Engine> {
    let settings = settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    support::engine(&settings)
}

pub fn run(group: &mut Group) {
    let Ok(port) = std::env::var(NIC) else {
        return group.note(&format!("not run: GPU memory over a NIC: {NIC} names no port"));
    };
    group.check(&format!("WRITE and READ of GPU memory over {port}"), expect_bytes);
}

fn expect_bytes() -> String {
    let engine = engine();
    let mut peer = Peer::start();
    let here = keeps("connect", || engine.connect("127.0.0.1", peer.port, 0, false)).unwrap();
    let local = Registered::new(&engine, Kind::Gpu, LENGTH);
    let (address, rkey) = peer.memory[Kind::Gpu as usize];
    let remote = RemoteRange { address, size: LENGTH as u32, rkey };
    let iov = Iov { local: local.memory.address, length: LENGTH as u64, region: Some(local.region), remote };
    let mut said = here.info().path.to_string();
    for opcode in [Opcode::Write, Opcode::Read] {
        local.memory.write(&pattern(60, LENGTH));
        peer.fill(Kind::Gpu, 61);
        let start = Instant::now();
        for _ in 0..ROUNDS {
            let id = keeps("submit", || here.submit(opcode, &[iov][..])).unwrap();
            assert_eq!(finish(&here, id), Outcome::Done);
        }
        let rate = (ROUNDS * LENGTH) as f64 / start.elapsed().as_secs_f64() / 1e9;
        said = format!("{said}, {opcode:?} {rate:.2} GB/s one at a time");
        let expected = pattern(if opcode == Opcode::Write { 60 } else { 61 }, LENGTH);
        assert!(local.memory.read() == expected && peer.sum(Kind::Gpu) == sum(&expected));
    }
    said
}
