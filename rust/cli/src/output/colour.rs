//! Colours, where a person reads: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).

use std::io::IsTerminal;

/// `text` in a colour, given by its SGR parameters, if standard output shows colours.
pub(crate) fn paint(text: &str, colour: &str) -> String {
    if on(std::io::stdout().is_terminal()) { painted(text, colour) } else { text.to_owned() }
}

/// Whether a stream shows colours.
pub(crate) fn on(is_terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    wanted(is_terminal, set("NO_COLOR").is_some(), set("TERM").is_some_and(|term| term == "dumb"))
}

fn wanted(is_terminal: bool, no_color: bool, is_dumb: bool) -> bool {
    is_terminal && !no_color && !is_dumb
}

/// `text` in a colour.
pub(crate) fn painted(text: &str, colour: &str) -> String {
    format!("\x1b[{colour}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        assert!(wanted(true, false, false));
        for (is_terminal, no_color, is_dumb) in
            [(false, false, false), (true, true, false), (true, false, true)]
        {
            assert!(!wanted(is_terminal, no_color, is_dumb));
        }
        assert_eq!(painted("ok", "32"), "\x1b[32mok\x1b[0m");
    }
}
