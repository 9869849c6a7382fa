//! Reads single values through the table's rules and remembers what was wrong with them.

use super::hidden::Hidden;
use super::number::parse_integer;
use super::variable::{Kind, Variable};

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The default is used instead.
    Info,
    /// The default is used instead, with a warning: the loss of this setting is noticed late.
    Warn,
    /// An engine with this setting does not open.
    Fatal,
}

/// A value that was not used as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// How serious.
    pub severity: Severity,
    /// Name of the variable.
    pub variable: &'static str,
    /// What was found, what was expected, what happens now.
    pub text: String,
    /// The variable has its default, as if it were unset.
    pub rejected: bool,
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

    /// The text of a variable of the table, which is recorded as read.
    pub(super) fn text(&mut self, variable: &'static Variable) -> Option<String> {
        let text = self.lookup(variable.name);
        self.settings.push(Setting { variable, text: text.clone() });
        text
    }

    /// A text with a secret: `shown` makes of it what is recorded.
    pub(super) fn hidden(
        &mut self,
        variable: &'static Variable,
        shown: fn(&str) -> String,
    ) -> Option<Hidden> {
        let text = self.lookup(variable.name);
        self.settings.push(Setting { variable, text: text.as_deref().map(shown) });
        text.map(Hidden::new)
    }

    /// The number as set; `None` when it is unset or not acceptable.
    pub(super) fn set_integer(&mut self, variable: &'static Variable) -> Option<i64> {
        let text = self.text(variable)?;
        let accepted = |number: &i64| match variable.kind {
            Kind::Integer { min, max, .. } => (min..=max).contains(number),
            Kind::OneOf { values, .. } => values.contains(number),
            Kind::Switch { .. } | Kind::Word { .. } | Kind::Text { .. } => true,
        };
        let number = parse_integer(&text).filter(|number| accepted(number) && has_digits(&text));
        match number {
            None => {
                let severity = match variable.kind {
                    Kind::OneOf { .. } => Severity::Warn,
                    _ => Severity::Info,
                };
                self.reject(severity, variable, &text);
            }
            Some(number) if !is_whole_number(&text) => {
                let text = format!(
                    "{}={text:?} is read as {number}: the text behind the digits is ignored",
                    variable.name
                );
                let warning =
                    Warning { severity: Severity::Info, variable: variable.name, text, rejected: false };
                self.warnings.push(warning);
            }
            Some(_) => {}
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

    /// The number as another type. The table's ranges fit the types they are read as (a test goes through all limits).
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
                let warning =
                    Warning { severity: Severity::Fatal, variable: variable.name, text, rejected: true };
                self.warnings.push(warning);
            })
            .ok()
    }

    /// A text in a form of its own. A malformed one counts as unset, with a warning.
    pub(super) fn parsed_or_none<T>(
        &mut self,
        variable: &'static Variable,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(variable)?;
        let unset = variable.default_text();
        parse(&text)
            .map_err(|problem| {
                let text = format!("{}={text:?}: {problem}; taken as {unset}", variable.name);
                self.warnings.push(Warning {
                    severity: Severity::Warn,
                    variable: variable.name,
                    text,
                    rejected: true,
                });
            })
            .ok()
    }

    /// An invalid value: the default is used, or no engine opens where a guess would change what carries the data, or which
    /// peers may connect.
    fn reject(&mut self, severity: Severity, variable: &'static Variable, text: &str) {
        let (name, range, default) = (variable.name, variable.range_text(), variable.default_text());
        let (severity, text) = match variable.refuses {
            true => (
                Severity::Fatal,
                format!(
                    "{name}={text:?} is not an allowed value ({range}); set one of them, or unset the variable ({default})"
                ),
            ),
            false => (severity, format!("{name}={text:?} is outside {range}; using the default {default}")),
        };
        self.warnings.push(Warning { severity, variable: variable.name, text, rejected: true });
    }
}

/// Whether a number begins the text, as `strtoll` reads it.
fn has_digits(text: &str) -> bool {
    unsigned(text).starts_with(|character: char| character.is_ascii_digit())
}

/// Whether nothing but a number is in the text.
fn is_whole_number(text: &str) -> bool {
    let digits = unsigned(text.trim_end());
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(rest) => !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None if digits.starts_with('0') => digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')),
        None => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

fn unsigned(text: &str) -> &str {
    let text = text.trim_start();
    text.strip_prefix(['-', '+']).unwrap_or(text)
}
