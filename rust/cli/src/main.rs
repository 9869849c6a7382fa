//! The executable `flagcx-p2p`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // Without its own path it cannot start itself again, which is said where that is needed.
    let itself = std::env::current_exe().map(Into::into).into_iter().collect();
    ExitCode::from(flagcx_p2p_cli::run(std::env::args_os().collect(), itself))
}
