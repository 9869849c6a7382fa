//! `doctor`: what the engine finds on this machine, what it would do with it, and what would fail.

mod addresses;
mod devices;
mod limits;
mod probe;

use flagcx_p2p::internals::config::{self, Config, Severity};

use crate::error::{CliError, Result};
use crate::output;

/// The problems found so far.
#[derive(Debug, Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }
}

/// Runs `doctor`. Fails when an engine could not open at all.
pub(crate) fn run() -> Result<()> {
    let config = config::global();
    let mut findings = Findings::default();
    output::line(&format!("flagcx-p2p {}", env!("CARGO_PKG_VERSION")));
    settings(config, &mut findings);
    addresses::report(config, &mut findings);
    let devices = devices::report(config, &mut findings);
    limits::report(
        devices.is_ok_and(|provider| provider == Some(flagcx_p2p::internals::fabric::Provider::Verbs)),
        &mut findings,
    );
    let works = probe::report(&mut findings);
    heading("what would fail");
    if findings.0.is_empty() {
        output::line("  nothing was found");
    }
    for finding in &findings.0 {
        output::line(&format!("  - {finding}"));
    }
    if works {
        Ok(())
    } else {
        Err(CliError::other("two processes of this machine cannot reach each other, see above"))
    }
}

fn settings(config: &Config, findings: &mut Findings) {
    heading("settings (everything else has its default)");
    let mut any = false;
    for setting in config.settings() {
        if let Some(text) = &setting.text {
            any = true;
            output::line(&format!("  {}={text}", setting.variable.name));
        }
    }
    if !any {
        output::line("  no variable is set");
    }
    for warning in config.warnings() {
        let end = if warning.severity == Severity::Fatal { "; no engine opens with it" } else { "" };
        findings.add(format!("{}{end}", warning.text));
    }
}

fn heading(text: &str) {
    output::line(&format!("\n{text}"));
}

fn fact(name: &str, text: &str) {
    output::line(&format!("  {name:<22}{text}"));
}
