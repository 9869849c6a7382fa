//! Writes the table as Markdown.

use std::fmt::Write;

use super::table::{RETIRED, groups};
use super::variable::Variable;

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from the table in rust/core/src/config/table/. Rewrite it with: UPDATE_DOCS=1 cargo test -p flagcx-p2p --test configuration -->

Every setting is an environment variable. Variables that are not in the environment are looked up in
`~/.flagcx.conf` and then in `/etc/flagcx.conf`: `NAME=value` lines, without comments, and nothing is trimmed.
They are read once per process.

A process opens its devices once, for its first engine or for the first call that asks about them. Programs that give engines
settings of their own, in Rust and Python, are refused with the name of the variable when one that only the fabric reads asks for
something else afterwards; so are another `FLAGCX_P2P_ALLOW` and `FLAGCX_P2P_AUTH_KEY_FILE` with the software fabric, which has one
port for the bytes of all engines. An unset variable asks for nothing.

Numbers are read as C's `strtoll` does with base 0: decimal, `0x` hexadecimal or `0` octal; text behind the digits is
ignored, with a line in the log. A value outside its range, or without digits, is replaced by the default, with a line in the
log. Not so where a guess would change what carries the data, or which peers may connect: with such a value of a variable that is
marked \u{2020} no engine opens, and the error names variable, value and what is allowed. An empty value counts as unset.
An unknown name that begins with `FLAGCX_P2P_` is logged once, with the most similar known one.

`flagcx-p2p config` prints every variable: its value, where that comes from, default, range and meaning; wrong values are
marked. `flagcx-p2p config NAME` says when to set one.
";

/// The content of `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for group in groups() {
        let _ = write!(page, "\n## {}\n\n{}\n\n", group.title, group.about);
        page.push_str(
            "| Variable | Default | Range | Unit | What it changes | When to change it | Read by |\n",
        );
        page.push_str("|---|---|---|---|---|---|---|\n");
        for variable in group.variables {
            page.push_str(&row(variable));
        }
    }
    page.push_str("\n## Without effect\n\nVariables of the original engine that this one ignores.\n\n");
    page.push_str("| Variable | Why |\n|---|---|\n");
    for (name, reason) in RETIRED {
        let _ = writeln!(page, "| `{name}` | {reason} |");
    }
    page
}

fn row(variable: &Variable) -> String {
    let cells = [
        format!("`{}`{}", variable.name, if variable.refuses { " \u{2020}" } else { "" }),
        variable.default_text(),
        variable.range_text(),
        variable.unit.to_owned(),
        variable.changes.to_owned(),
        variable.when.to_owned(),
        variable.read_by.to_owned(),
    ];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}
