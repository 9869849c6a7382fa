//! The exit status, told in the help of each command.

use clap::Command;

/// One meaning each, whatever the command is.
const TABLE: &str = "Exit status:\n  \
    0      done\n  \
    1      failed, also when results cannot be printed, and when doctor finds a failure\n  \
    2      wrong usage, such as an unknown option or a file that does not exist\n  \
    128+N  ended by signal N; a first signal lets serve end its transfers, with status 0";

/// Adds the table to `command` and all commands below it.
pub(super) fn described(command: Command) -> Command {
    let text = match command.get_after_help() {
        Some(own) => format!("{own}\n\n{TABLE}"),
        None => TABLE.to_owned(),
    };
    command.after_help(text).mut_subcommands(described)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(command: &mut Command, test: &mut impl FnMut(&mut Command)) {
        test(command);
        // `help` itself is made by clap, and ends as the others do.
        for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
            each(below, test);
        }
    }

    #[test]
    fn every_help_has_it_once() {
        let mut commands = 0;
        each(&mut super::super::command(), &mut |command| {
            commands += 1;
            let help = command.render_help().to_string();
            assert_eq!(help.matches("Exit status:").count(), 1, "{help}");
        });
        assert!(commands > 8, "{commands}");
    }
}
