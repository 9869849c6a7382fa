//! What `doctor` has found: one finding is one line, or one object of JSON.

use std::fmt;

use serde::Serialize;

use crate::output::{self, colour};

/// How good or bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be, or a fact.
    Ok,
    /// Works, but slower or less than it could.
    Warn,
    /// Does not work.
    Fail,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Names the check, for programs: stable.
    pub(super) id: &'static str,
    pub(super) level: Level,
    /// What was looked at.
    pub(super) subject: String,
    /// What was found.
    pub(super) finding: String,
    /// What to do about it; `None` where there is nothing to do.
    pub(super) action: Option<String>,
}

/// All findings, in the order in which they are printed.
#[derive(Debug, Default)]
pub(super) struct Report {
    sections: Vec<(&'static str, Vec<Finding>)>,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// SGR parameters: green, yellow, red.
    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Warn => "33",
            Self::Fail => "1;31",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.finding)?;
        match &self.action {
            Some(action) => write!(f, "; {action}"),
            None => Ok(()),
        }
    }
}

impl Report {
    /// What is found from now on belongs to `section`.
    pub(super) fn section(&mut self, section: &'static str) {
        self.sections.push((section, Vec::new()));
    }

    pub(super) fn ok(&mut self, id: &'static str, subject: impl Into<String>, finding: impl Into<String>) {
        self.add(id, Level::Ok, subject, finding, None);
    }

    pub(super) fn warn(
        &mut self,
        id: &'static str,
        subject: impl Into<String>,
        finding: impl Into<String>,
        action: impl Into<String>,
    ) {
        self.add(id, Level::Warn, subject, finding, Some(action.into()));
    }

    pub(super) fn fail(
        &mut self,
        id: &'static str,
        subject: impl Into<String>,
        finding: impl Into<String>,
        action: impl Into<String>,
    ) {
        self.add(id, Level::Fail, subject, finding, Some(action.into()));
    }

    fn add(
        &mut self,
        id: &'static str,
        level: Level,
        subject: impl Into<String>,
        finding: impl Into<String>,
        action: Option<String>,
    ) {
        let finding = Finding {
            id,
            level,
            subject: subject.into(),
            finding: one_line(finding),
            action: action.map(one_line),
        };
        if self.sections.is_empty() {
            self.section("");
        }
        if let Some((_, findings)) = self.sections.last_mut() {
            findings.push(finding);
        }
    }

    /// Adds what another report has found to the section.
    pub(super) fn append(&mut self, other: Self) {
        let findings = other.sections.into_iter().flat_map(|(_, findings)| findings);
        match self.sections.last_mut() {
            Some((_, own)) => own.extend(findings),
            None => self.sections.push(("", findings.collect())),
        }
    }

    /// Every finding.
    pub(super) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.sections.iter().flat_map(|(_, findings)| findings)
    }

    /// Whether there is one of this id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.findings().any(|finding| finding.id == id)
    }

    /// How many there are of a level.
    pub(super) fn count(&self, level: Level) -> usize {
        self.findings().filter(|finding| finding.level == level).count()
    }

    /// Prints all of it: a list of objects as JSON, else a line for each finding.
    pub(super) fn print(&self, json: bool) {
        if json {
            let findings: Vec<_> = self.findings().collect();
            return output::json(&findings);
        }
        for (title, findings) in self.sections.iter().filter(|(_, findings)| !findings.is_empty()) {
            output::line(&format!("\n{title}"));
            for finding in findings {
                let level = colour::paint(&format!("{:<4}", finding.level.word()), finding.level.colour());
                output::line(&format!("{level}  {finding}"));
            }
        }
        let (warnings, failures) = (self.count(Level::Warn), self.count(Level::Fail));
        output::line(&format!("\n{warnings} to improve, {failures} that do not work"));
    }
}

fn one_line(text: impl Into<String>) -> String {
    text.into().replace(['\n', '\r'], " ")
}

#[cfg(test)]
impl Report {
    /// The one finding with this id.
    #[track_caller]
    pub(super) fn one(&self, id: &str) -> &Finding {
        let mut found = self.findings().filter(|finding| finding.id == id);
        let first = found.next().unwrap_or_else(|| panic!("no finding {id}: {self:#?}"));
        assert!(found.next().is_none(), "more than one finding {id}: {self:#?}");
        first
    }

    /// The level of the one finding with this id, and its line.
    #[track_caller]
    pub(super) fn seen(&self, id: &str) -> (Level, String) {
        let finding = self.one(id);
        (finding.level, finding.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_and_says_what_to_do() {
        let mut report = Report::default();
        report.warn("a", "subject", "found\nthis", "do that");
        report.ok("b", "other", "fine");
        let lines: Vec<_> = report.findings().map(ToString::to_string).collect();
        assert_eq!(lines, ["subject: found this; do that", "other: fine"]);
        assert_eq!([Level::Ok, Level::Warn, Level::Fail].map(|level| report.count(level)), [1, 1, 0]);
    }

    #[test]
    fn json_has_the_documented_members() {
        let mut report = Report::default();
        report.fail("a", "subject", "found", "do that");
        let json = serde_json::to_value(report.one("a")).unwrap();
        let expected = serde_json::json!({
            "id": "a", "level": "fail", "subject": "subject", "finding": "found", "action": "do that"
        });
        assert_eq!(json, expected);
    }
}
