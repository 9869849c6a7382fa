//! One configuration variable: what it is called, what it may be, and what it is for.

/// A variable of the table.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Name in the environment.
    pub name: &'static str,
    /// Form, default and range.
    pub kind: Kind,
    /// Unit of the value, empty if it has none.
    pub unit: &'static str,
    /// The component of this crate that acts on it.
    pub read_by: &'static str,
    /// What it changes.
    pub changes: &'static str,
    /// When to set it.
    pub when: &'static str,
    /// A valid value other than the default.
    pub example: &'static str,
    /// With an invalid value no engine opens: a guess would change what carries the data, or which peers may connect.
    pub refuses: bool,
    /// The variable that counts where this one is unset, empty if there is none.
    pub fallback: &'static str,
}

/// Form, default and range of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, read as `strtoll` with base 0 does.
    Integer {
        /// Value when unset or out of range.
        default: i64,
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// One of a few numbers.
    OneOf {
        /// Value when unset or not in the list.
        default: i64,
        /// All of them.
        values: &'static [i64],
    },
    /// Zero is off, any other number is on.
    Switch {
        /// Value when unset.
        default: bool,
    },
    /// One of a few words, any case.
    Word {
        /// Value when unset or not in the list.
        default: &'static str,
        /// All of them.
        values: &'static [&'static str],
    },
    /// Text.
    Text {
        /// What an unset variable means.
        unset: &'static str,
        /// How the text is written.
        form: &'static str,
    },
}

impl Variable {
    pub(super) const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            unit: "",
            read_by: "",
            changes: "",
            when: "",
            example: "",
            refuses: false,
            fallback: "",
        }
    }

    pub(super) const fn integer(name: &'static str, default: i64, min: i64, max: i64) -> Self {
        Self::new(name, Kind::Integer { default, min, max })
    }

    pub(super) const fn switch(name: &'static str, default: bool) -> Self {
        Self::new(name, Kind::Switch { default })
    }

    pub(super) const fn word(
        name: &'static str,
        default: &'static str,
        values: &'static [&'static str],
    ) -> Self {
        Self::new(name, Kind::Word { default, values })
    }

    pub(super) const fn text(name: &'static str, unset: &'static str, form: &'static str) -> Self {
        Self::new(name, Kind::Text { unset, form })
    }

    pub(super) const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(super) const fn read_by(mut self, component: &'static str) -> Self {
        self.read_by = component;
        self
    }

    pub(super) const fn changes(mut self, what: &'static str) -> Self {
        self.changes = what;
        self
    }

    pub(super) const fn when(mut self, when: &'static str) -> Self {
        self.when = when;
        self
    }

    pub(super) const fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    pub(super) const fn falls_back_to(mut self, name: &'static str) -> Self {
        self.fallback = name;
        self
    }

    pub(super) const fn refuses(mut self) -> Self {
        self.refuses = true;
        self
    }

    /// The default in words.
    pub fn default_text(&self) -> String {
        match self.kind {
            Kind::Integer { default, .. } | Kind::OneOf { default, .. } => default.to_string(),
            Kind::Switch { default } => i64::from(default).to_string(),
            Kind::Word { default, .. } => default.to_owned(),
            Kind::Text { unset, .. } => format!("unset: {unset}"),
        }
    }

    /// The valid values in words.
    pub fn range_text(&self) -> String {
        match self.kind {
            Kind::Integer { min, max, .. } => format!("{min}..{max}"),
            Kind::OneOf { values, .. } => values.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
            Kind::Switch { .. } => "0 = off, else on".to_owned(),
            Kind::Word { values, .. } => values.join(", "),
            Kind::Text { form, .. } => form.to_owned(),
        }
    }
}
