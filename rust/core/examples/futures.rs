//! A thousand transfers at a time, as futures, on an executor of two threads.
//!
//! ```text
//! futures [TRANSFERS]            # 1,000 if not said
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program, not the library")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use std::{env, process, thread};

use async_executor::Executor;
use flagcx_p2p::{Config, Connection, Engine, EngineOptions, Iov, Opcode, Outcome};
use futures_lite::future;

/// Bytes of each transfer.
const PIECE: u64 = 4096;

/// Writes a piece and reads it back.
async fn there_and_back(peer: Arc<Connection>, out: Iov, back: Iov) -> Result<(), String> {
    for (opcode, iov) in [(Opcode::Write, out), (Opcode::Read, back)] {
        // A task must not block: where there is no room now, others go first.
        let transfer = loop {
            match peer.try_transfer(opcode, &[iov]) {
                Err(flagcx_p2p::SubmitError::WouldBlock) => future::yield_now().await,
                started => break started.map_err(|error| error.to_string())?,
            }
        };
        match transfer.await {
            Outcome::Done => {}
            outcome => return Err(outcome.to_string()),
        }
    }
    Ok(())
}

fn run(count: u64) -> Result<(), Box<dyn Error>> {
    // Both ends in one process, to be short.
    let server = Engine::open(Config::global(), EngineOptions::default())?;
    let client = Engine::open(Config::global(), EngineOptions::default())?;
    let target = server.allocate((count * PIECE) as usize)?;
    let source = client.allocate((2 * count * PIECE) as usize)?;
    server.start_rpc_server()?;
    let port = server.rpc_port().ok_or("no listener")?;
    let peer = client.session(&format!("{}:{port}", server.address()))?;

    let executor = Executor::new();
    let mut tasks = Vec::new();
    let begun = Instant::now();
    for number in 0..count {
        let offset = number * PIECE;
        source.write(offset as usize, &number.to_le_bytes());
        let remote = peer.describe_remote(target.address() + offset, PIECE as u32).ok_or("not announced")?;
        let at = |local: u64| Iov {
            local: source.address() + local,
            length: PIECE,
            region: Some(source.region()),
            remote,
        };
        tasks.push(executor.spawn(there_and_back(Arc::clone(&peer), at(offset), at(count * PIECE + offset))));
    }
    let all = async {
        for task in tasks {
            task.await?;
        }
        Ok::<(), String>(())
    };
    thread::scope(|scope| {
        let (stop, stopped) = futures_channel::oneshot::channel::<()>();
        let other = scope.spawn(|| future::block_on(executor.run(stopped)));
        let done = future::block_on(executor.run(all));
        drop(stop);
        let _ = other.join();
        done
    })?;
    for number in 0..count {
        let mut found = [0; 8];
        source.read(((count + number) * PIECE) as usize, &mut found);
        if u64::from_le_bytes(found) != number {
            return Err(format!("piece {number} came back as another").into());
        }
    }
    println!("{} transfers done in {:?}", 2 * count, begun.elapsed());
    Ok(())
}

fn main() {
    let count = env::args().nth(1).map_or(Ok(1000), |text| text.parse());
    let done = count.map_err(|_| "usage: futures [TRANSFERS]".into()).and_then(run);
    if let Err(error) = done {
        eprintln!("futures: {error}");
        process::exit(1);
    }
}
