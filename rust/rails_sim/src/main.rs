//! `./x bench rails [--json FILE] [--seeds N]`

use std::process::ExitCode;
use std::time::Instant;

use flagcx_p2p_rails_sim::{formulas, json, rows, table};

/// Seeds of ours, and of each rival: theirs show what they do, and prove nothing.
const SEEDS: u64 = 1_000;
const RIVAL_SEEDS: u64 = 10;

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]
fn main() -> ExitCode {
    let (mut file, mut seeds) = (None, SEEDS);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--json", Some(path)) => file = Some(path),
            ("--seeds", Some(count)) if count.parse::<u64>().is_ok_and(|count| count > 0) => {
                seeds = count.parse().unwrap_or(SEEDS);
            }
            _ => {
                eprintln!("bench rails: '{argument}' is not understood; --json FILE, --seeds N");
                return ExitCode::from(2);
            }
        }
    }
    let start = Instant::now();
    let wrong = formulas();
    if !wrong.is_empty() {
        eprintln!("bench rails: the model does not agree with its formulas:\n{}", wrong.join("\n"));
        return ExitCode::FAILURE;
    }
    let rows = rows(seeds, RIVAL_SEEDS.min(seeds));
    println!("{}", table(&rows));
    println!("{:.1} s", start.elapsed().as_secs_f64());
    if let Some(file) = file {
        let written = json(&rows).map_err(|error| error.to_string());
        if let Err(error) =
            written.and_then(|text| std::fs::write(&file, text).map_err(|error| error.to_string()))
        {
            eprintln!("bench rails: {file} cannot be written: {error}");
            return ExitCode::FAILURE;
        }
    }
    if rows.iter().all(|row| row.misses.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
