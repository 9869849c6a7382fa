//! `ls`, and the look-up of folders for `get`.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::opening::open_session;
use super::{ListOptions, receive, unexpected};
use crate::error::{CliError, Problem, Result, While};
use crate::interrupt::{self, Kept};
use crate::output::{self, units};
use crate::settings;
use crate::store::{FileName, Listed, RelativeName};
use crate::wire::Frame;
use crate::wire::control::{Control, ControlError};

/// Most files of a listing, as a server may send them: they are kept in memory.
const MOST: usize = 1_000_001;

/// The files of a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<Listed>,
    /// Links, special files and names that are not transferred.
    pub(super) skipped: u64,
}

/// Runs `ls`.
pub(crate) fn list(options: &ListOptions) -> Result<()> {
    let ListOptions { server, .. } = options;
    let prefix = match (server.path(), options.prefix.as_str()) {
        (path, "") => path,
        ("", prefix) => prefix,
        (path, prefix) => {
            return Err(CliError::usage(format!(
                "two prefixes, \"{}\" and \"{}\": name one",
                path.escape_debug(),
                prefix.escape_debug()
            )));
        }
    };
    // Whole folders are asked for; the prefix may end within a name.
    let folder = plain(prefix.rsplit_once('/').map_or("", |(folder, _)| folder))?;
    let last = prefix.rsplit_once('/').map_or(prefix, |(_, last)| last);
    let begins = if folder.is_empty() { last.to_owned() } else { format!("{folder}/{last}") };
    server.check()?;
    interrupt::handle(Kept::NOTHING)?;
    let listing = server.reach(|address| look_up(address, &folder)).doing(|| format!("ls {server}"))?;
    let files: Vec<_> = listing.files.iter().filter(|file| file.name.starts_with(&begins)).collect();
    if files.is_empty() && !prefix.is_empty() {
        return Err(CliError::other(format!("no file's name begins with \"{}\"", prefix.escape_debug())))
            .doing(|| format!("ls {server}"));
    }
    for file in files {
        if options.json {
            output::json_line(&json_of(file));
        } else {
            output::line(&text_line(file));
        }
    }
    if listing.skipped > 0 && !options.json {
        output::remark(&format!("{} links, special files and unusual names are not listed", listing.skipped));
    }
    Ok(())
}

/// Opens a session for one listing, without an engine.
fn look_up(server: &str, folder: &str) -> Result<Listing> {
    let control = Control::connect(server)?;
    let config = settings::config(Some(control.local().ip()))?;
    open_session(&control, &config)?;
    files(&control, folder)?
}

/// All files of `folder`, or the one file of that name. The outer error is that of the stream.
pub(super) fn files(control: &Control, folder: &str) -> Result<Result<Listing>> {
    control.send(&Frame::List { folder: folder.to_owned() })?;
    let mut listing = Listing::default();
    loop {
        match receive(control)? {
            Frame::Entries { entries } => listing.files.extend(entries),
            Frame::Listed { skipped } => {
                listing.skipped = skipped;
                break;
            }
            Frame::Failed { text } => return Ok(Err(ControlError::Refused(text).into())),
            other => return Err(unexpected(&other)),
        }
        if listing.files.len() > MOST {
            return Err(CliError::protocol("it lists more files than it may"));
        }
    }
    // They are printed, and become names here.
    for file in &listing.files {
        RelativeName::new(&file.name).map_err(|error| CliError::protocol(error.to_string()))?;
    }
    Ok(Ok(listing))
}

/// A folder's name as it was typed, without what means nothing: `a/`, `./a` and `.` are `a`, `a` and the served directory.
pub(super) fn plain(name: &str) -> Result<String> {
    let usage = |error: String| CliError::from(Problem::Usage(error));
    if name.is_empty() || name.starts_with('/') {
        return match name {
            "" => Ok(String::new()),
            name => Err(usage(format!(
                "name \"{}\" is absolute; names are relative to the served directory",
                name.escape_debug()
            ))),
        };
    }
    let parts: Vec<_> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts
        .iter()
        .try_for_each(|part| FileName::new(part).map(|_| ()))
        .map_err(|error| usage(error.to_string()))?;
    Ok(parts.join("/"))
}

fn text_line(file: &Listed) -> String {
    format!("{:>12}  {}  {}", units::bytes(file.size), time(file.seconds), file.name)
}

fn json_of(file: &Listed) -> serde_json::Value {
    json!({ "file": file.name, "bytes": file.size, "modified": time(file.seconds) })
}

/// `2026-11-27T18:53:00Z`; a time before 1970 or after 9999 is a number of seconds.
fn time(seconds: i64) -> String {
    let since = u64::try_from(seconds).ok().filter(|seconds| *seconds < 253_402_300_800);
    match since.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => format!("@{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_they_are_typed() {
        for (typed, name) in [("", ""), (".", ""), ("a", "a"), ("./a", "a"), ("a//b/", "a/b")] {
            assert_eq!(plain(typed).unwrap(), name);
        }
        for bad in ["/", "/a", "..", "a/../b"] {
            assert_eq!(plain(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(1_795_805_580), "2026-11-27T18:53:00Z");
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        for odd in [-1, i64::MIN, i64::MAX] {
            assert_eq!(time(odd), format!("@{odd}"));
        }
    }
}
