//! `peers`: the names of a directory, and how they change.

use std::time::{Duration, Instant, SystemTime};

use flagcx_p2p::internals::config::Hidden;
use flagcx_p2p_directory::{Change, Name, Record};
use serde_json::{Value, json};

use super::directory::{LIMIT, of, open};
use crate::error::{Result, While};
use crate::interrupt::{self, Kept};
use crate::output;

/// How often a watch looks for a signal.
const LOOK: Duration = Duration::from_millis(100);

/// `flagcx-p2p peers`.
#[derive(Clone, Debug)]
pub(crate) struct PeersOptions {
    /// What the names begin with.
    pub(crate) prefix: String,
    /// Tell changes, until a signal.
    pub(crate) watch: bool,
    /// Print JSON.
    pub(crate) json: bool,
    /// The URL of `--directory`, which may have a password in it.
    pub(crate) directory: Option<Hidden>,
}

/// Runs `peers`.
pub(crate) fn peers(options: &PeersOptions) -> Result<()> {
    let directory = open(options.directory.as_ref().map(Hidden::reveal))?;
    interrupt::handle(Kept::NOTHING)?;
    let doing = || format!("list the names of {}", directory.describe());
    if options.watch {
        let mut watch = directory.watch(&options.prefix).map_err(of).doing(doing)?;
        loop {
            interrupt::check()?;
            output::check()?;
            match watch.next(LOOK) {
                Ok(Some(change)) => show(&change, options.json),
                Ok(None) => {}
                // It goes on, and tells what was missed.
                Err(error) => {
                    output::remark(&of(error).to_string());
                    interrupt::sleep(PAUSE)?;
                }
            }
        }
    }
    let found = directory.list(&options.prefix, Instant::now() + LIMIT).map_err(of).doing(doing)?;
    interrupt::check()?;
    if options.json {
        let found: Vec<_> = found.iter().map(|(name, record)| json_of(name, record)).collect();
        output::json(&found);
    } else if found.is_empty() {
        let among = if options.prefix.is_empty() {
            String::new()
        } else {
            format!(" that begins with {}", options.prefix)
        };
        output::remark(&format!("no name{among} is published in {}", directory.describe()));
    } else {
        output::line(&table(&found));
    }
    Ok(())
}

/// Between two attempts of a watch that fails.
const PAUSE: Duration = Duration::from_secs(1);

fn table(found: &[(Name, Record)]) -> String {
    let mut table = output::table(["name", "address", "kind", "version", "host", "pid", "since (UTC)"]);
    for (name, record) in found {
        let shown =
            |text: &str| if text.is_empty() { "-".to_owned() } else { text.escape_debug().to_string() };
        let pid = if record.pid == 0 { "-".to_owned() } else { record.pid.to_string() };
        table.add_row([
            name.to_string(),
            shown(&record.address),
            shown(&record.kind),
            shown(&record.version),
            shown(&record.host),
            pid,
            shown(&since(record)),
        ]);
    }
    table.to_string()
}

fn show(change: &Change, json: bool) {
    match (change, json) {
        (Change::Published(name, record), true) => {
            let mut object = json_of(name, record);
            if let Value::Object(members) = &mut object {
                members.insert("change".to_owned(), "published".into());
            }
            output::json_line(&object);
        }
        (Change::Withdrawn(name), true) => {
            output::json_line(&json!({ "name": name.as_str(), "change": "withdrawn" }));
        }
        (Change::Published(name, record), false) => {
            output::line(&format!(
                "+ {name}  {}  {}",
                record.address.escape_debug(),
                record.kind.escape_debug()
            ));
        }
        (Change::Withdrawn(name), false) => output::line(&format!("- {name}")),
    }
}

fn json_of(name: &Name, record: &Record) -> Value {
    json!({
        "name": name.as_str(),
        "address": record.address,
        "kind": record.kind,
        "engine_id": format!("{:016x}", record.engine_id),
        "version": record.version,
        "host": record.host,
        "pid": record.pid,
        "since": since(record),
    })
}

/// When the record was made; empty if it is not known.
fn since(record: &Record) -> String {
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(record.started_at));
    match since.filter(|_| (1..253_402_300_800_000).contains(&record.started_at)) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_empty() {
        let (name, record) = (Name::new("a/b").unwrap(), Record::of_address("192.0.2.7:1"));
        assert_eq!(json_of(&name, &record)["since"], "");
        assert!(table(&[(name.clone(), record.clone())]).contains("192.0.2.7:1"));
        let record = Record { started_at: 1_795_805_580_000, engine_id: 7, ..record };
        let json = json_of(&name, &record);
        assert_eq!(
            (json["since"].as_str(), json["engine_id"].as_str()),
            (Some("2026-11-27T18:53:00Z"), Some("0000000000000007"))
        );
        assert_eq!(since(&Record { started_at: u64::MAX, ..record }), "");
    }
}
