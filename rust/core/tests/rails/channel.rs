//! The control channel ends, and both processes live, with all of their rails.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{Opcode, PathKind};
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use crate::alone;
use crate::nics::{ENOUGH, Nics, make_rails};
use crate::proxy::Proxy;
use crate::rail_pair::GUARD;
use crate::support::own_time::OwnTime;
use crate::support::{blocks, content, eventually, outcome};

const OPCODES: [Opcode; 2] = [Opcode::Write, Opcode::Read];

/// How late flushed WRITEs arrive at a queue pair that is not in ERROR.
const LATE: Duration = Duration::from_millis(20);

/// The drain of each lane, and a second.
const ENDED: Duration = Duration::from_secs(4);

struct Bench {
    near: Nics,
    client: Arc<Engine>,
    server: Arc<Engine>,
    source: RegisteredBuffer,
    target: RegisteredBuffer,
    /// Stands in front of the server's listeners, of which bytes of transfers need none.
    proxy: Proxy,
    _far: Nics,
}

/// Where the server announces itself, and where it is.
const FRONT: &str = "127.0.0.2";
const BACK: &str = "127.0.0.1";

/// Listeners of the server: sessions, notifications, lanes.
const PORTS: u16 = 8;

/// The first of some ports that are free in front and behind. Below those that the kernel chooses itself.
fn free_ports() -> u16 {
    let is_free = |port: u16| [FRONT, BACK].iter().all(|at| TcpListener::bind((*at, port)).is_ok());
    let begin = 20_000 + (std::process::id() % 1_000) as u16 * PORTS;
    let mut firsts = (begin..30_000).step_by(PORTS.into());
    firsts.find(|first| (*first..first + PORTS).all(is_free)).unwrap()
}

impl Bench {
    fn new() -> Self {
        let [near, far] = [(); 2].map(|()| Nics::on_path(8, Some(PathKind::InProcess)));
        let first = free_ports();
        let at = |host: &str, port| SocketAddr::new(host.parse().unwrap(), port);
        let routes = (first..first + PORTS).map(|port| (at(FRONT, port), at(BACK, port)));
        let proxy = Proxy::new(routes, 1).unwrap();
        let range = format!("{first}-{}", first + PORTS - 1);
        let (client, server) = (
            near.engine(&[]),
            far.engine(&[("FLAGCX_P2P_ADVERTISE", FRONT), ("FLAGCX_P2P_PORT_RANGE", &range)]),
        );
        let (source, target) = (client.allocate(ENOUGH).unwrap(), server.allocate(ENOUGH).unwrap());
        Self { near, client, server, source, target, proxy, _far: far }
    }

    /// A connection with eight rails, through the proxy.
    fn connect(&self) -> [Arc<Connection>; 2] {
        let server = Arc::clone(&self.server);
        let accepting = std::thread::spawn(move || server.accept().unwrap().connection);
        let here = self.client.connect(FRONT, self.server.rpc_port().unwrap(), 0, true).unwrap();
        let there = accepting.join().unwrap();
        make_rails(&here, &self.source, self.target.address(), 8);
        [here, there]
    }

    fn iov(&self, here: &Connection) -> Iov {
        let remote = here.describe_remote(self.target.address(), ENOUGH as u32).unwrap();
        let region = Some(self.source.region());
        Iov { local: self.source.address(), length: ENOUGH as u64, region, remote }
    }

    /// Some NICs have requests that they end later, or never, when the channel ends.
    fn strike(&self, opcode: Opcode, seed: u64, silent: usize) {
        let [here, there] = self.connect();
        let (from, to) = match opcode {
            Opcode::Write => (&self.source, &self.target),
            Opcode::Read => (&self.target, &self.source),
        };
        let bytes = blocks(seed, ENOUGH);
        assert!(from.write(0, &bytes) && to.write(0, &vec![GUARD; ENOUGH]));
        for nic in 0..silent {
            self.near.switches(nic).set_silent(true);
            self.near.switches(nic).set_late(LATE);
        }
        let iov = [self.iov(&here)];
        let id = here.submit(opcode, &iov[..]).unwrap();
        std::thread::sleep(Duration::from_millis(seed % 8));
        let time = OwnTime::start();
        self.proxy.cut();
        let ended = outcome(&here, id);
        let taken = time.elapsed();
        match &ended {
            Outcome::Done => assert!(content(to) == bytes, "{opcode:?}: done, and other bytes are there"),
            Outcome::Failed(failure) => assert!(!failure.to_string().contains('\n'), "{failure}"),
            Outcome::TimedOut | Outcome::Cancelled => panic!("{opcode:?}: {ended:?}"),
        }
        // Its memory is the program's again.
        assert!(to.write(0, &vec![GUARD; ENOUGH]));
        eventually("both ends have ended", || !here.is_usable() && !there.is_usable());
        assert!(taken < ENDED, "{opcode:?}: the transfer ended after {taken:?}");
        eventually("all rails are down", || {
            let rails = [here.rails(), there.rails()].concat();
            rails.iter().all(|rail| (rail.status, rail.healthy_lanes) == (RailStatus::Down, 0))
        });
        assert!(here.submit(opcode, &iov[..]).is_err(), "a connection that has ended");
        self.near.heal();
        std::thread::sleep(2 * LATE);
        assert!(content(to) == vec![GUARD; ENOUGH], "{opcode:?}: written after the end of the transfer");
        println!("{opcode:?}, {silent} NICs silent: {ended:?} after {taken:?}");
    }
}

/// All rails end with it, nothing is done that is not, and nothing arrives later. The engines go on.
#[test]
fn the_connection_ends_with_its_control_channel_whatever_its_rails_do() {
    let _alone = alone();
    let bench = Bench::new();
    for (seed, (opcode, silent)) in
        OPCODES.into_iter().flat_map(|opcode| [0, 3, 8].map(|silent| (opcode, silent))).enumerate()
    {
        bench.strike(opcode, seed as u64, silent);
    }
    let [here, _there] = bench.connect();
    assert!(bench.source.write(0, &blocks(9, ENOUGH)));
    let id = here.submit(Opcode::Write, &[bench.iov(&here)][..]).unwrap();
    assert_eq!(outcome(&here, id), Outcome::Done);
    assert!(content(&bench.target) == blocks(9, ENOUGH));
}
