//! What a name stands for.

use flagcx_p2p::internals::control::split_session;
use serde::{Deserialize, Serialize};

use crate::{Error, Name};

/// Where a published engine is reached, and which engine it is. Every reader of the directory sees all of it.
///
/// In a directory it is JSON text of at most 4 KiB. A reader ignores members that it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// `host:port` or `[IPv6 address]:port` of the engine's control listener, as `Engine::session` takes it.
    pub address: String,
    /// What FlagCX's own programs take, `ip:port?gpu?notifPort`; `None` if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What the engine is part of, such as `library` or `serve`; empty if it is not known.
    pub kind: String,
    /// Random per engine: a restarted peer has another one, which the handshake tells too. 0 if it is not known.
    #[serde(with = "hexadecimal")]
    pub engine_id: u64,
    /// The version of the engine; empty if it is not known.
    pub version: String,
    /// When the record was made, in milliseconds since 1970 by the clock of its host. For people: nothing is decided by it.
    pub started_at: u64,
    /// The name of its host; empty if it is not known.
    pub host: String,
    /// Its process on that host; 0 if it is not known.
    pub pid: u32,
}

/// The kind of a `flagcx-p2p serve`, which moves files. At its address no engine answers, so that it accepts connections has to be
/// enough to keep its name. Where another program has its address now, the name is free when the lease has run out.
pub const FILE_SERVER: &str = "serve";

impl Record {
    /// A record of nothing but an address.
    pub fn of_address(address: &str) -> Self {
        Self { address: address.to_owned(), ..Self::default() }
    }

    /// The record as text, to be stored under `name`.
    pub(crate) fn encode(&self, name: &Name) -> Result<String, Error> {
        let error = |problem| Error::Record { name: name.to_string(), problem };
        if let Some(problem) = self.problem() {
            return Err(error(problem));
        }
        let text = serde_json::to_string(self).map_err(|failed| error(failed.to_string()))?;
        match text.len() {
            ..=LONGEST => Ok(text),
            length => Err(error(format!("it has {length} bytes as text, and at most {LONGEST} are allowed"))),
        }
    }

    /// The record that is stored under `name`.
    pub(crate) fn decode(name: &str, text: &[u8]) -> Result<Self, Error> {
        let error = |problem| Error::Record { name: name.to_owned(), problem };
        if text.len() > LONGEST {
            return Err(error(format!("it has {} bytes, and at most {LONGEST} are allowed", text.len())));
        }
        let record: Self = serde_json::from_slice(text)
            .map_err(|failed| error(format!("it is no record of this project: {failed}")))?;
        match record.problem() {
            None => Ok(record),
            Some(problem) => Err(error(problem)),
        }
    }

    /// Whether both are of one engine.
    pub(crate) fn is_of_the_engine_of(&self, other: &Self) -> bool {
        self.engine_id != 0 && self.engine_id == other.engine_id
    }

    fn problem(&self) -> Option<String> {
        if let Err(error) = split_session(&self.address) {
            return Some(error.to_string());
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte);
        if !self.address.bytes().all(fits) {
            return Some(format!("{:?} is no address: a host has letters, digits, . - and _", self.address));
        }
        let texts = [&self.address, &self.kind, &self.version, &self.host];
        let texts = texts.into_iter().chain(&self.session);
        // A log line and a terminal show them.
        let odd = |text: &&String| text.chars().any(char::is_control);
        texts.into_iter().find(odd).map(|text| format!("{text:?} has control characters"))
    }
}

/// 64 bits as text: many readers of JSON have no integers of that size.
mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(|_| D::Error::custom("engine_id is not 16 hexadecimal digits"))
    }
}

/// Bytes of a record as text, at most.
pub(crate) const LONGEST: usize = 4096;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        Record {
            address: "192.0.2.7:7000".to_owned(),
            session: Some("192.0.2.7:7000?0?7001".to_owned()),
            kind: "serve".to_owned(),
            engine_id: 0x1234_5678_9abc_def0,
            version: "0.1.0".to_owned(),
            started_at: 1_700_000_000_000,
            host: "node-7".to_owned(),
            pid: 42,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_stored() {
        let name = Name::new("decode-3").unwrap();
        let text = record().encode(&name).unwrap();
        assert!(text.contains(r#""engine_id":"123456789abcdef0""#), "{text}");
        assert_eq!(Record::decode("decode-3", text.as_bytes()).unwrap(), record());
        let later = text.replacen('{', r#"{"added_later":[1,2,{"x":null}],"#, 1);
        assert_eq!(Record::decode("decode-3", later.as_bytes()).unwrap(), record());
    }

    #[test]
    fn what_is_no_record_is_refused_with_the_reason() {
        let long = format!(r#"{{"address":"h:1","host":"{}"}}"#, "h".repeat(LONGEST));
        let deep = "[".repeat(4000);
        for bad in [
            "",
            "{",
            "[]",
            r#""h:1""#,
            "{}",
            r#"{"address":"h"}"#,
            r#"{"address":7}"#,
            r#"{"address":"h:1","engine_id":"xyz"}"#,
            r#"{"address":"h:1","host":"\u001b[2J"}"#,
            r#"{"address":"h:1","pid":-1}"#,
            &long,
            &deep,
        ] {
            let error = Record::decode("decode-3", bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("decode-3"), "{error}");
        }
        let name = Name::new("n").unwrap();
        assert!(Record { host: "h".repeat(5000), ..record() }.encode(&name).is_err());
        assert!(Record { address: "nowhere".to_owned(), ..record() }.encode(&name).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Record::decode("n", &bytes);
        }

        #[test]
        fn what_is_encoded_can_be_read(host: String, kind: String, session: Option<String>, id: u64) {
            let record = Record { host, kind, session, engine_id: id, ..record() };
            if let Ok(text) = record.encode(&Name::new("n").unwrap()) {
                prop_assert_eq!(Record::decode("n", text.as_bytes()).unwrap(), record);
            }
        }
    }
}
