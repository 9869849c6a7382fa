//! Two processes of this machine: one owns memory, the other writes into it and reads it back.
//!
//! ```text
//! two_processes [BYTES]          # 16 MiB if not said; starts the other process itself
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program, not the library")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, process};

use flagcx_p2p::{Config, Engine, EngineOptions, Iov, Opcode, Outcome, Status};

/// The other process: prints how to reach it, and keeps its memory until a line of input comes.
fn own(length: usize) -> Result<(), Box<dyn Error>> {
    let engine = Engine::open(Config::global(), EngineOptions::default())?;
    let memory = engine.allocate(length)?;
    engine.start_rpc_server()?;
    let port = engine.rpc_port().ok_or("no listener")?;
    println!("{}:{port} {}", engine.address(), memory.address());
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn move_both_ways(session: &str, address: u64, length: u32) -> Result<(), Box<dyn Error>> {
    let engine = Engine::open(Config::global(), EngineOptions::default())?;
    let (out, back) = (engine.allocate(length as usize)?, engine.allocate(length as usize)?);
    let bytes: Vec<u8> = (0..length).map(|index| (index / 7) as u8).collect();
    out.write(0, &bytes);
    let peer = engine.session(session)?;
    let remote = peer.describe_remote(address, length).ok_or("the peer has announced no such memory")?;
    for (opcode, memory) in [(Opcode::Write, &out), (Opcode::Read, &back)] {
        let begun = Instant::now();
        let iov =
            Iov { local: memory.address(), length: u64::from(length), region: Some(memory.region()), remote };
        let id = peer.submit(opcode, &[iov])?;
        match peer.wait(id, Duration::from_secs(60)) {
            Status::Ended(Outcome::Done) => {}
            Status::Ended(outcome) => return Err(outcome.to_string().into()),
            other => return Err(format!("{opcode:?}: {other:?}").into()),
        }
        println!("{opcode:?} of {length} bytes, path {}: {:?}", peer.info().path, begun.elapsed());
    }
    let mut found = vec![0; bytes.len()];
    back.read(0, &mut found);
    if found == bytes { Ok(()) } else { Err("the bytes that came back are others".into()) }
}

fn with_other_process(length: u32) -> Result<(), Box<dyn Error>> {
    let mut other = Command::new(env::current_exe()?)
        .args(["own", &length.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(other.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let (session, address) = line.trim().split_once(' ').ok_or("the other process has not started")?;
    let moved = move_both_ways(session, address.parse()?, length);
    // Closes its input, which ends it.
    drop(other.stdin.take());
    other.wait()?;
    moved
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] => with_other_process(16 << 20),
        ["own", length] => length.parse().map_err(Into::into).and_then(own),
        [length] => length.parse().map_err(Into::into).and_then(with_other_process),
        _ => Err("usage: two_processes [BYTES]".into()),
    };
    if let Err(error) = done {
        eprintln!("two_processes: {error}");
        process::exit(1);
    }
}
