//! Runs the groups one after the other, each in a process, and sums up.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::cuda;
use super::group::ROLE;

/// Exit status: 0 when all is well.
pub fn run<'a>(groups: impl Iterator<Item = (&'a str, u64)>) -> i32 {
    let start = Instant::now();
    // Asked for once, so that the stand-in is built once.
    let library = cuda::library();
    let mut lines = vec![format!("note    suite: {}", library.display())];
    println!("{}", lines[0]);
    for (name, seconds) in groups {
        run_group(name, Duration::from_secs(seconds), &library, &mut lines);
    }
    let count = |verdict: &str| lines.iter().filter(|line| line.starts_with(verdict)).count();
    let (passed, failed) = (count("ok "), count("FAILED "));
    let summary = format!("{passed} checks passed, {failed} failed, {:.0} s", start.elapsed().as_secs_f64());
    println!("gpu: {summary}");
    if let Some(folder) = std::env::var_os("OUT") {
        std::fs::write(Path::new(&folder).join("gpu.md"), report(&lines, &summary)).unwrap();
    }
    i32::from(failed > 0 || passed == 0)
}

/// Its lines are added to `lines`; a process that does not end well adds one of its own.
fn run_group(name: &str, limit: Duration, library: &Path, lines: &mut Vec<String>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    cuda::choose(library, &mut command);
    let mut child = command.env(ROLE, name).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = channel();
    let reader = std::thread::spawn(move || {
        output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
    let deadline = Instant::now() + limit;
    let from = lines.len();
    let late = loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                break true;
            }
        }
    };
    let status = child.wait().unwrap();
    reader.join().unwrap();
    lines.extend(receiver.try_iter());
    let failed = lines[from..].iter().any(|line| line.starts_with("FAILED "));
    let reason = match (late, status.signal()) {
        (true, _) => format!("not over after {limit:?}"),
        (_, Some(signal)) => format!("ended by signal {signal}"),
        _ if !status.success() && !failed => format!("ended with {status}"),
        _ => return,
    };
    let line = format!("FAILED  {name}: the group's process [0 ms] {reason}");
    println!("{line}");
    lines.push(line);
}

fn report(lines: &[String], summary: &str) -> String {
    let mut text = format!("# GPU suite\n\n{summary}\n\n| | group | check | ms | |\n|---|---|---|---|---|\n");
    for line in lines {
        let (verdict, rest) = line.split_at_checked(8).unwrap_or(("", line));
        let (group, rest) = rest.split_once(": ").unwrap_or(("", rest));
        let (check, detail) = rest.split_once(" [").unwrap_or(("", rest));
        let (took, detail) = detail.split_once(" ms] ").unwrap_or(("", detail));
        let _ = writeln!(text, "| {} | {group} | {check} | {took} | {detail} |", verdict.trim());
    }
    text
}
