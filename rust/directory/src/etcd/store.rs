//! Names and leases as requests.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::answer::{LeaseAnswer, Line, Range, Stored, Transaction};
use super::auth::NOT_FOUND;
use super::client::Client;
use super::keys::{Keys, after, encode};
use crate::static_list::Names;
use crate::{Error, Name, Record};

/// The names in etcd.
#[derive(Debug)]
pub(super) struct Store {
    client: Client,
    keys: Keys,
}

/// All names at one moment.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) names: Names,
    /// That moment, as etcd counts it.
    pub(super) revision: i64,
}

/// When a name may be written.
#[derive(Clone, Copy, Debug)]
pub(super) enum If {
    /// Nothing is there.
    Free,
    /// What is there is of this revision.
    Unchanged(i64),
}

/// What came of writing a name.
#[derive(Debug)]
pub(super) enum Put {
    Done,
    /// The condition did not hold; what is there, if anything is by now.
    Not(Option<Stored>),
    /// The lease has run out.
    NoLease,
}

impl Store {
    pub(super) fn new(client: Client, keys: Keys) -> Self {
        Self { client, keys }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn find(&self, name: &Name, deadline: Instant) -> Result<Option<Stored>, Error> {
        let operation = format!("look up {name:?}", name = name.as_str());
        let range: Range =
            self.client.post(&operation, "kv/range", &json!({ "key": self.keys.of(name) }), deadline)?;
        Ok(range.kvs.into_iter().next())
    }

    /// Page by page, all of one moment. Pages of large values, which are not ours, have fewer of them.
    pub(super) fn list(&self, prefix: &str, deadline: Instant) -> Result<Listed, Error> {
        let (mut first, end) = self.keys.range(prefix);
        let mut listed = Listed { names: Names::new(), revision: 0 };
        let (mut page, mut seen) = (PAGE, 0);
        while seen < MOST_VALUES {
            let body = json!({
                "key": first, "range_end": end, "limit": page.to_string(), "revision": listed.revision.to_string(),
            });
            let range: Range = match self.client.post("list names", "kv/range", &body, deadline) {
                Err(Error::TooLong { .. }) if page > 1 => {
                    page = (page / 8).max(1);
                    continue;
                }
                range => range?,
            };
            seen += range.kvs.len();
            if listed.revision == 0 {
                listed.revision = range.header.revision;
            }
            let last = range.kvs.last().map(|stored| after(&stored.key));
            listed.names.extend(range.kvs.iter().filter_map(|stored| self.read(stored)));
            match last {
                Some(next) if range.more => first = next,
                _ => return Ok(listed),
            }
        }
        Err(Error::Answer {
            operation: "list names".to_owned(),
            endpoint: "etcd".to_owned(),
            problem: format!("it has no end after {seen} names"),
        })
    }

    /// The name and record of a value; `None` of one that is not ours.
    pub(super) fn read(&self, stored: &Stored) -> Option<(Name, Record)> {
        let name = self.keys.name(&stored.key)?;
        let record = Record::decode(name.as_str(), &stored.value).ok()?;
        Some((name, record))
    }

    /// Writes `text` under `name`, at once with the test of `condition`.
    pub(super) fn put(
        &self,
        name: &Name,
        text: &str,
        lease: i64,
        condition: If,
        deadline: Instant,
    ) -> Result<Put, Error> {
        let key = self.keys.of(name);
        let compare = match condition {
            If::Free => json!({ "key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0" }),
            If::Unchanged(revision) => {
                json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() })
            }
        };
        let value = encode(text.as_bytes());
        let body = json!({
            "compare": [compare],
            "success": [{ "request_put": { "key": key, "value": value, "lease": lease.to_string() } }],
            "failure": [{ "request_range": { "key": key } }],
        });
        let operation = format!("publish {:?}", name.as_str());
        match self.client.post::<Transaction>(&operation, "kv/txn", &body, deadline) {
            Ok(done) if done.succeeded => Ok(Put::Done),
            Ok(not) => Ok(Put::Not(found(not))),
            Err(Error::Refused { code: NOT_FOUND, .. }) => Ok(Put::NoLease),
            Err(error) => Err(error),
        }
    }

    /// Removes `name`, if it is of this lease.
    pub(super) fn remove(&self, name: &Name, lease: i64, deadline: Instant) -> Result<(), Error> {
        let key = self.keys.of(name);
        let body = json!({
            "compare": [{ "key": key, "target": "LEASE", "result": "EQUAL", "lease": lease.to_string() }],
            "success": [{ "request_delete_range": { "key": key } }],
        });
        let operation = format!("withdraw {:?}", name.as_str());
        self.client.post::<Transaction>(&operation, "kv/txn", &body, deadline).map(drop)
    }

    /// A new lease.
    pub(super) fn grant(&self, ttl: Duration, deadline: Instant) -> Result<i64, Error> {
        let body = json!({ "TTL": ttl.as_secs().to_string() });
        let granted: LeaseAnswer = self.client.post("get a lease", "lease/grant", &body, deadline)?;
        Ok(granted.id)
    }

    /// Prolongs a lease; false when there is none of that number any more.
    pub(super) fn keep_alive(&self, lease: i64, deadline: Instant) -> Result<bool, Error> {
        let line: Line<LeaseAnswer> =
            self.client.post("keep the lease", "lease/keepalive", &id(lease), deadline)?;
        match (line.result, line.error) {
            (Some(kept), _) => Ok(kept.ttl > 0),
            (None, problem) => Err(Error::Refused {
                operation: "keep the lease".to_owned(),
                endpoint: "etcd".to_owned(),
                code: problem.as_ref().map_or(0, |problem| problem.grpc_code),
                reason: problem.map(|problem| problem.message).unwrap_or_default(),
            }),
        }
    }

    /// The names that a lease holds; `None` when there is none of that number any more.
    pub(super) fn names_of(&self, lease: i64, deadline: Instant) -> Result<Option<Vec<Name>>, Error> {
        let body = json!({ "ID": lease.to_string(), "keys": true });
        let answer: LeaseAnswer = self.client.post("check the lease", "lease/timetolive", &body, deadline)?;
        let names = answer.keys.iter().filter_map(|key| self.keys.name(key)).collect();
        Ok((answer.ttl > 0).then_some(names))
    }

    /// Ends a lease, and with it all of its names.
    pub(super) fn revoke(&self, lease: i64, deadline: Instant) -> Result<(), Error> {
        match self.client.post::<Value>("end the lease", "lease/revoke", &id(lease), deadline) {
            Err(Error::Refused { code: NOT_FOUND, .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn id(lease: i64) -> Value {
    json!({ "ID": lease.to_string() })
}

fn found(transaction: Transaction) -> Option<Stored> {
    let ranges = transaction.responses.into_iter().filter_map(|response| response.response_range);
    ranges.flat_map(|range| range.kvs).next()
}

/// Names in one answer.
const PAGE: u32 = 500;

/// Of one list.
const MOST_VALUES: usize = 500_000;
