//! A program with an event loop of its own: transfers that end are one more descriptor to wait for, beside a timer.
//!
//! mio, tokio (`AsyncFd`) and epoll take the descriptor in the same way.
//!
//! ```text
//! event_loop [TRANSFERS]         # 1,000 if not said
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program, not the library")]

use std::collections::HashSet;
use std::error::Error;
use std::time::Instant;
use std::{env, process};

use flagcx_p2p::{Config, Engine, EngineOptions, Iov, Opcode, Outcome, SubmitError, TransferId};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Bytes of each transfer.
const PIECE: u64 = 4096;

/// Transfers under way at a time.
const AT_ONCE: usize = 64;

/// Readable every millisecond: something else that the program waits for.
fn ticks() -> Result<OwnedFd, Box<dyn Error>> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let millisecond = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    let times = Itimerspec { it_interval: millisecond, it_value: millisecond };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
    Ok(timer)
}

fn run(count: usize) -> Result<(), Box<dyn Error>> {
    // Both ends in one process, to be short.
    let server = Engine::open(Config::global(), EngineOptions::default())?;
    let client = Engine::open(Config::global(), EngineOptions::default())?;
    let (target, source) = (server.allocate(PIECE as usize)?, client.allocate(PIECE as usize)?);
    server.start_rpc_server()?;
    let port = server.rpc_port().ok_or("no listener")?;
    let peer = client.session(&format!("{}:{port}", server.address()))?;
    let remote = peer.describe_remote(target.address(), PIECE as u32).ok_or("not announced")?;
    let iov = Iov { local: source.address(), length: PIECE, region: Some(source.region()), remote };

    let (ended, timer) = (client.ended()?, ticks()?);
    let (mut under_way, mut taken) = (HashSet::new(), Vec::new());
    let (mut started, mut ticked, begun) = (0, 0_u64, Instant::now());
    while started < count || !under_way.is_empty() {
        // Never blocks: what finds no room is started after others have ended.
        while started < count && under_way.len() < AT_ONCE {
            match peer.try_submit_to(&ended, Opcode::Write, &[iov]) {
                Ok(TransferId::COMPLETE) => {}
                Ok(id) => drop(under_way.insert(id)),
                Err(SubmitError::WouldBlock) if !under_way.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
            started += 1;
        }
        let mut fds = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&timer, PollFlags::IN)];
        poll(&mut fds, None)?;
        let [transfers_ended, tick] = fds.map(|fd| !fd.revents().is_empty());
        if transfers_ended {
            ended.take_ended(&mut taken);
            for (id, outcome) in taken.drain(..) {
                under_way.remove(&id);
                if outcome != Outcome::Done {
                    return Err(outcome.to_string().into());
                }
            }
        }
        if tick {
            let mut number = [0; 8];
            rustix::io::read(&timer, &mut number)?;
            ticked += u64::from_ne_bytes(number);
        }
    }
    println!("{count} transfers done and {ticked} ticks seen in {:?}", begun.elapsed());
    Ok(())
}

fn main() {
    let count = env::args().nth(1).map_or(Ok(1000), |text| text.parse());
    let done = count.map_err(|_| "usage: event_loop [TRANSFERS]".into()).and_then(run);
    if let Err(error) = done {
        eprintln!("event_loop: {error}");
        process::exit(1);
    }
}
