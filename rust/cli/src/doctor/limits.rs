//! Limits of the system that transfers run into.

use rustix::process::{Resource, Rlimit, getrlimit};

use super::{Findings, fact, heading};
use crate::output::units;

/// Locked memory below which ordinary registrations fail.
const MEMLOCK_RECOMMENDED: u64 = 1 << 30;
/// Descriptors below which a few hundred connections fail.
const FILES_RECOMMENDED: u64 = 1024;

/// Reports them. Locked memory matters to `verbs` only.
pub(super) fn report(verbs: bool, findings: &mut Findings) {
    heading("limits");
    let memlock = getrlimit(Resource::Memlock);
    fact("memlock", &show(memlock, units::bytes));
    if let Some(limit) = memlock.current.filter(|limit| verbs && *limit < MEMLOCK_RECOMMENDED) {
        findings.add(format!(
            "registering more than {} fails: raise memlock (ulimit -l unlimited, or LimitMEMLOCK=infinity)",
            units::bytes(limit)
        ));
    }
    let files = getrlimit(Resource::Nofile);
    fact("open files", &show(files, |limit| limit.to_string()));
    if let Some(limit) = files.current.filter(|limit| *limit < FILES_RECOMMENDED) {
        findings.add(format!("only {limit} open files: many connections fail; raise nofile (ulimit -n)"));
    }
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    let (text, problem) = cross_memory(scope.as_deref().map(str::trim));
    fact("cross-memory, by Yama", text);
    if let Some(problem) = problem {
        findings.add(problem);
    }
}

fn show(limit: Rlimit, text: impl Fn(u64) -> String) -> String {
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), &text);
    format!("{} (hard limit {})", text(limit.current), text(limit.maximum))
}

/// The effect of Yama's setting on copies between processes.
fn cross_memory(scope: Option<&str>) -> (&'static str, Option<String>) {
    let slower =
        |why: &str| Some(format!("processes of this host use TCP instead of cross-memory copies: {why}"));
    match scope {
        None => ("not restricted (no Yama)", None),
        Some("0") => ("not restricted (ptrace_scope 0)", None),
        Some("1") => ("after the peer's consent (ptrace_scope 1)", None),
        Some("2") => (
            "privileged only (ptrace_scope 2)",
            slower("sysctl kernel.yama.ptrace_scope=1, or give the processes CAP_SYS_PTRACE"),
        ),
        Some("3") => {
            ("forbidden (ptrace_scope 3)", slower("ptrace_scope 3 cannot be lowered without a reboot"))
        }
        Some(_) => ("unknown", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ptrace_scopes() {
        for (scope, fine) in
            [(None, true), (Some("0"), true), (Some("1"), true), (Some("2"), false), (Some("3"), false)]
        {
            assert_eq!(cross_memory(scope).1.is_none(), fine, "{scope:?}");
        }
    }
}
