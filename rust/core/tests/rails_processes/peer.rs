//! The other process: an engine with several NICs that does as it is told.

use std::io::BufRead as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::PathKind;

use crate::nics::{ENOUGH, Nics};
use crate::other_process::OtherProcess;
use crate::support::{blocks, content};

/// Set in the environment of the other process: its number of NICs, and its path.
const ROLE: &str = "FLAGCX_P2P_TEST_RAILS_PEER";

pub(crate) const LENGTH: usize = ENOUGH;

pub(crate) const SETTINGS: &[(&str, &str)] =
    &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "10000"), ("FLAGCX_P2P_BIND", "127.0.0.1")];

const FORCED: [PathKind; 2] = [PathKind::CrossMemory, PathKind::Tcp];

pub(crate) struct PeerProcess {
    process: OtherProcess,
    pub(crate) port: u16,
    pub(crate) address: u64,
}

impl PeerProcess {
    pub(crate) fn start(count: u32, path: Option<PathKind>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let path = path.map_or_else(|| "any".to_owned(), |path| path.to_string());
        let mut process = OtherProcess::start(command.env(ROLE, format!("{count} {path}")), "peer_process");
        let numbers = process.numbers();
        Self { process, port: numbers[0] as u16, address: numbers[1] }
    }

    pub(crate) fn ask(&mut self, command: &str) -> Vec<String> {
        self.process.ask(command)
    }

    /// What has no answer of its own.
    pub(crate) fn order(&mut self, command: &str) {
        assert_eq!(self.ask(command), ["done"], "{command}");
    }

    pub(crate) fn fill(&mut self, seed: u64) {
        self.order(&format!("fill {seed}"));
    }

    /// Whether its buffer holds the bytes of `seed`.
    pub(crate) fn holds(&mut self, seed: u64) -> bool {
        self.ask(&format!("holds {seed}")) == ["true"]
    }

    pub(crate) fn kill(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }
}

/// What the other process does, if this is it.
pub(crate) fn play() {
    let Ok(role) = std::env::var(ROLE) else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    let (count, path) = role.split_once(' ').unwrap();
    let path = FORCED.into_iter().find(|forced| forced.to_string() == path);
    let nics = Nics::on_path(count.parse().unwrap(), path);
    let engine = nics.engine(SETTINGS);
    let buffer = engine.allocate(LENGTH).unwrap();
    println!("\nanswer: {} {}", engine.rpc_port().unwrap(), buffer.address());
    let accepting = {
        let engine = Arc::clone(&engine);
        std::thread::spawn(move || engine.accept().unwrap().connection)
    };
    let (mut accepting, mut connection) = (Some(accepting), None::<Arc<Connection>>);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let answer = match words[0] {
            "rails" => {
                let accepted = || accepting.take().unwrap().join().unwrap();
                let connection = connection.get_or_insert_with(accepted);
                crate::nics::up(connection).len().to_string()
            }
            "fill" => done(|| assert!(buffer.write(0, &blocks(number(1), LENGTH)))),
            "holds" => (content(&buffer) == blocks(number(1), LENGTH)).to_string(),
            "silent" => done(|| nics.switches(number(1) as usize).set_silent(true)),
            "slow" => {
                let delay = Duration::from_micros(number(2));
                done(|| nics.switches(number(1) as usize).set_delay(delay))
            }
            "broken" => done(|| nics.devices[number(1) as usize].break_queue_pairs()),
            "port" => done(|| nics.set_port(number(1) as usize, words[2] == "up")),
            "lose" => done(|| nics.lose(number(1) as usize)),
            "heal" => done(|| nics.heal()),
            other => panic!("unknown command {other}"),
        };
        println!("\nanswer: {answer}");
    }
    engine.close();
}

fn done(act: impl FnOnce()) -> String {
    act();
    "done".to_owned()
}
