//! What looks at busy connections cost the event loop.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::Opcode;

use crate::ends::{Devices, Ends};

pub(crate) fn run() {
    println!(
        "| connections with two rails, each with a transfer under way | the event loop's time, of one processor | of a connection, us in a second |"
    );
    println!("|---|---|---|");
    for count in [1, 10, 100, 1000] {
        // The connections of a process share one event loop.
        let of = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["looks-of", &count.to_string()])
            .status();
        assert!(of.unwrap().success(), "{count}");
    }
    println!();
}

/// The row of so many connections.
pub(crate) fn of(count: u32) {
    let ends = Ends::new(Devices::StandIns, 2, 1 << 20, &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "100000")]);
    let iovs = ends.iovs(1, 4096, &mut 0);
    let connections: Vec<_> = (0..count).map(|_| ends.connect(2)).collect();
    let idle = load();
    set_silent(0b11);
    for connection in &connections {
        // The devices answer nothing, and wake no thread.
        connection.submit(Opcode::Write, &iovs[..]).unwrap();
    }
    let busy = load() - idle;
    println!("| {count} | {:.1} % | {:.0} |", 100.0 * busy, busy.max(0.0) * 1e6 / f64::from(count));
    // What is under way never ends.
    std::process::exit(0);
}

/// The devices of the stand-in that answer nothing from now on, a bit each: a rail is not made of such.
#[allow(unsafe_code, reason = "a function of the stand-in")]
fn set_silent(devices: u64) {
    let library = std::env::var("FLAGCX_P2P_NULLVERBS").unwrap();
    // SAFETY: the prototype is that of nullverbs.h.
    let code = unsafe {
        let library = libloading::Library::new(library).unwrap();
        let set =
            library.get::<unsafe extern "C" fn(*const libc::c_char, u64) -> libc::c_int>(b"nullverbs_set");
        set.unwrap()(c"silent_devices".as_ptr(), devices)
    };
    assert_eq!(code, 0);
}

/// The part of a processor that the event loops take.
fn load() -> f64 {
    std::thread::sleep(Duration::from_millis(500));
    let (begin, before) = (Instant::now(), event_loops());
    std::thread::sleep(Duration::from_secs(2));
    (event_loops() - before).as_secs_f64() / begin.elapsed().as_secs_f64()
}

/// The processor time of all threads that are event loops.
fn event_loops() -> Duration {
    let mut nanos = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let read = |name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        if read("comm").trim() == "p2p-events" {
            nanos +=
                read("schedstat").split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(nanos)
}
