//! Tests that run again inside namespaces of their own.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]

use std::process::Command;

/// Set to the name of the test that runs inside.
const INSIDE: &str = "FLAGCX_P2P_TEST_INSIDE_NAMESPACES";

/// Namespaces, as options of `unshare`.
pub type Namespaces = &'static [&'static str];

/// Whether this process was started by [`run`].
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test called `test` once more inside `namespaces`, and shows what it prints. There [`is_inside`] is true.
pub fn run(test: &str, namespaces: Namespaces) {
    let inside = Command::new("unshare")
        .args(namespaces)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, test)
        .output()
        .unwrap();
    let (output, errors) = (String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&inside.stderr));
    print!("{output}");
    assert!(inside.status.success(), "in the namespaces:\n{output}\n{errors}");
    assert!(output.contains("1 passed"), "there is no test {test}:\n{output}");
}

/// The first of `choices` in which `command` succeeds, or the reasons why it does in none. Where a program may make none, tests
/// print that they were not run.
pub fn first_of(choices: &[Namespaces], command: &[&str]) -> Result<Namespaces, String> {
    let mut reasons = Vec::new();
    for namespaces in choices {
        match Command::new("unshare").args(*namespaces).args(command).output() {
            Ok(tried) if tried.status.success() => return Ok(namespaces),
            Ok(tried) => reasons.push(String::from_utf8_lossy(&tried.stderr).trim().to_owned()),
            Err(error) => reasons.push(format!("unshare: {error}")),
        }
    }
    Err(reasons.join("; as it is: "))
}
