//! Reads single values through the table's rules and remembers what was wrong with them.

use super::number::parse_integer;
use super::variable::{Kind, Variable};

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The default is used instead.
    Info,
    /// The same, for settings whose loss is noticed late.
    Warn,
    /// An engine with this setting does not open.
    Fatal,
}

/// A value that could not be taken as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// How serious.
    pub severity: Severity,
    /// Name of the variable.
    pub variable: &'static str,
    /// What was found, what was expected, what happens now.
    pub text: String,
}

/// A variable and the text that it was set to.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its entry in the table.
    pub variable: &'static Variable,
    /// `None`: unset, the default applies.
    pub text: Option<String>,
}

pub(super) struct Reader<'a> {
    source: &'a dyn Fn(&str) -> Option<String>,
    pub(super) warnings: Vec<Warning>,
    pub(super) settings: Vec<Setting>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { source, warnings: Vec::new(), settings: Vec::new() }
    }

    /// The text that a name is set to; an empty one counts as unset.
    pub(super) fn lookup(&self, name: &str) -> Option<String> {
        (self.source)(name).filter(|text| !text.is_empty())
    }

    /// The same for a variable of the table.
    pub(super) fn text(&mut self, variable: &'static Variable) -> Option<String> {
        let text = self.lookup(variable.name);
        self.settings.push(Setting { variable, text: text.clone() });
        text
    }

    /// The number as set; `None` when it is unset or not acceptable.
    pub(super) fn set_integer(&mut self, variable: &'static Variable) -> Option<i64> {
        let text = self.text(variable)?;
        let accepted = |number: &i64| match variable.kind {
            Kind::Integer { min, max, .. } => (min..=max).contains(number),
            Kind::OneOf { values, .. } => values.contains(number),
            Kind::Switch { .. } | Kind::Word { .. } | Kind::Text { .. } => true,
        };
        let number = parse_integer(&text).filter(accepted);
        if number.is_none() {
            let severity = match variable.kind {
                Kind::OneOf { .. } => Severity::Warn,
                _ => Severity::Info,
            };
            self.reject(severity, variable, &text);
        }
        number
    }

    /// The number, or the table's default.
    pub(super) fn integer(&mut self, variable: &'static Variable) -> i64 {
        let default = match variable.kind {
            Kind::Integer { default, .. } | Kind::OneOf { default, .. } => default,
            Kind::Switch { default } => i64::from(default),
            Kind::Word { .. } | Kind::Text { .. } => 0,
        };
        self.set_integer(variable).unwrap_or(default)
    }

    /// The same as another type. The table's ranges fit the types they are read as (a test goes through all limits).
    pub(super) fn number<T: TryFrom<i64> + Default>(&mut self, variable: &'static Variable) -> T {
        T::try_from(self.integer(variable)).unwrap_or_default()
    }

    pub(super) fn switch(&mut self, variable: &'static Variable) -> bool {
        self.integer(variable) != 0
    }

    /// The word, or the table's default.
    pub(super) fn word(&mut self, variable: &'static Variable) -> &'static str {
        let Kind::Word { default, values } = variable.kind else { return "" };
        let Some(text) = self.text(variable) else { return default };
        let known = values.iter().find(|value| value.eq_ignore_ascii_case(&text));
        if known.is_none() {
            self.reject(Severity::Warn, variable, &text);
        }
        known.copied().unwrap_or(default)
    }

    /// A text in a form of its own. A malformed one is fatal: what it would have restricted must not stay open.
    pub(super) fn parsed<T>(
        &mut self,
        variable: &'static Variable,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(variable)?;
        parse(&text)
            .map_err(|problem| {
                let text = format!("{}={text:?}: {problem}", variable.name);
                self.warnings.push(Warning { severity: Severity::Fatal, variable: variable.name, text });
            })
            .ok()
    }

    fn reject(&mut self, severity: Severity, variable: &'static Variable, text: &str) {
        let text = format!(
            "{}={text:?} is outside {}; using the default {}",
            variable.name,
            variable.range_text(),
            variable.default_text()
        );
        self.warnings.push(Warning { severity, variable: variable.name, text });
    }
}
