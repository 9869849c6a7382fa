//! What several rails cost and bring, beside one: by the engine itself, over stand-in NICs and software devices.
//!
//! `FLAGCX_P2P_NULLVERBS=path/to/libibverbs.so.1 cargo bench --bench rails_engine [-- PART...]`; `./x bench rails-engine` builds the
//! stand-in first. The parts are those of [`PARTS`], each in a process of its own, as the stand-in reads its settings once.
//! `calls RAILS PIECES BYTES IN_FLIGHT COUNT` carries out so many calls, by `Ends::calls`, the instructions of which callgrind counts:
//! docs/benchmarks.md has the command.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program of its own, which ends with the first surprise"
)]

mod cost;
mod ends;
mod looks;
mod memory;
mod size;

use std::process::Command;

/// A part of the measurement.
struct Part {
    name: &'static str,
    /// Of the stand-in, while it runs.
    settings: &'static [(&'static str, &'static str)],
    run: fn(),
}

const PARTS: [Part; 6] = [
    Part { name: "nics", settings: &[("COPY", "0"), ("DEVS", "2")], run: || cost::of_nics(2) },
    Part { name: "eight", settings: &[("COPY", "0"), ("DEVS", "8")], run: || cost::of_nics(8) },
    Part { name: "software", settings: &[], run: cost::of_software },
    // 50 bytes in a nanosecond, as 400 Gb/s are, and 2 us from one end to the other and back.
    Part {
        name: "size",
        settings: &[("COPY", "0"), ("DEVS", "2"), ("RATE", "50000"), ("DELAY_NS", "2000")],
        run: size::run,
    },
    Part { name: "looks", settings: &[("COPY", "0"), ("DEVS", "2"), ("TROUBLES", "1")], run: looks::run },
    Part { name: "memory", settings: &[("COPY", "0"), ("DEVS", "2")], run: memory::run },
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [first, part] = &wanted[..]
        && first == "in-process"
    {
        let part = PARTS.iter().find(|known| known.name == *part).expect("a part of that name");
        return (part.run)();
    }
    if let [first, numbers @ ..] = &wanted[..]
        && first == "calls"
    {
        let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().expect("a number")).collect();
        return cost::calls(&numbers);
    }
    if let [first, count] = &wanted[..]
        && first == "looks-of"
    {
        return looks::of(count.parse().expect("a number"));
    }
    for part in PARTS.iter().filter(|part| wanted.is_empty() || wanted.iter().any(|name| name == part.name)) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["in-process", part.name]);
        for (name, value) in part.settings {
            command.env(format!("NULLVERBS_{name}"), value);
        }
        assert!(command.status().unwrap().success(), "{}", part.name);
    }
}
