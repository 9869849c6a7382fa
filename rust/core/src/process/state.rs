//! Description of a process of this host, for error texts.

/// Names a process, with `(stopped)` if it is, where that is visible: a stopped process continues only after SIGCONT.
pub(crate) fn describe(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_stopped = stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(['T', 't']));
    format!("process {pid}{}", if is_stopped { " (stopped)" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_or_that_cannot_be_seen_is_not_called_stopped() {
        let own = std::process::id();
        assert_eq!(describe(own), format!("process {own}"));
        assert_eq!(describe(u32::MAX), "process 4294967295");
    }
}
