//! Writes a text into the memory of another process, and reads it back.
//!
//! ```text
//! hello receive                      # prints its port and the address of its memory; a line of input ends it
//! hello send HOST:PORT ADDRESS       # on any machine that reaches it
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program, not the library")]

use std::error::Error;
use std::time::Duration;
use std::{env, io, process};

use flagcx_p2p::{Config, Engine, EngineOptions, Iov, Opcode, Outcome, Status};

const SIZE: usize = 4096;

fn receive() -> Result<(), Box<dyn Error>> {
    let engine = Engine::open(Config::global(), EngineOptions::default())?;
    // Memory registered before a peer connects is announced to it.
    let memory = engine.allocate(SIZE)?;
    engine.start_rpc_server()?;
    println!("port {}, address {:#x}", engine.rpc_port().ok_or("no listener")?, memory.address());
    io::stdin().read_line(&mut String::new())?;
    let mut bytes = [0; SIZE];
    memory.read(0, &mut bytes);
    println!("received: {}", String::from_utf8_lossy(&bytes).trim_end_matches('\0'));
    Ok(())
}

fn send(session: &str, address: u64) -> Result<(), Box<dyn Error>> {
    let engine = Engine::open(Config::global(), EngineOptions::default())?;
    let memory = engine.allocate(SIZE)?;
    memory.write(0, b"hello from Rust");
    let peer = engine.session(session)?;
    let remote = peer.describe_remote(address, SIZE as u32).ok_or("the peer has announced no such memory")?;
    let piece = Iov { local: memory.address(), length: SIZE as u64, region: Some(memory.region()), remote };
    for opcode in [Opcode::Write, Opcode::Read] {
        let id = peer.submit(opcode, &[piece])?;
        match peer.wait(id, Duration::from_secs(60)) {
            Status::Ended(Outcome::Done) => println!("{opcode:?} done, path {}", peer.info().path),
            Status::Ended(outcome) => return Err(outcome.to_string().into()),
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let address = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let done = match (words.as_slice(), words.get(2).and_then(|text| address(text))) {
        (["receive"], _) => receive(),
        (["send", session, _], Some(address)) => send(session, address),
        _ => {
            eprintln!("usage: hello receive | hello send HOST:PORT ADDRESS");
            process::exit(2);
        }
    };
    if let Err(error) = done {
        eprintln!("hello: {error}");
        process::exit(1);
    }
}
