//! What the gateway answers, as far as it matters here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// A value and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Stored {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
    #[serde(deserialize_with = "integer")]
    pub(super) mod_revision: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "integer")]
    pub(super) revision: i64,
}

/// Of `range`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Vec<Stored>,
    pub(super) more: bool,
}

/// Of `txn`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Transaction {
    pub(super) succeeded: bool,
    pub(super) responses: Vec<Response>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Response {
    pub(super) response_range: Option<Range>,
}

/// Of `lease/grant` and `lease/timetolive`, and in the stream of `lease/keepalive`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LeaseAnswer {
    #[serde(rename = "ID", deserialize_with = "integer")]
    pub(super) id: i64,
    /// Seconds; 0 or less of a lease that there is not.
    #[serde(rename = "TTL", deserialize_with = "integer")]
    pub(super) ttl: i64,
    #[serde(deserialize_with = "list_of_bytes")]
    pub(super) keys: Vec<Vec<u8>>,
}

/// Of `auth/authenticate`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

/// One message of `watch`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) header: Header,
    /// Whether more events of the last revision in it follow in the next message.
    pub(super) fragment: bool,
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    #[serde(deserialize_with = "integer")]
    pub(super) compact_revision: i64,
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    /// `DELETE`, or nothing for a value.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) kv: Stored,
}

/// One line of a streamed answer.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub(super) struct Line<T> {
    pub(super) result: Option<T>,
    pub(super) error: Option<StreamProblem>,
}

/// An error in a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamProblem {
    #[serde(alias = "code")]
    pub(super) grpc_code: u32,
    pub(super) message: String,
}

/// An error as the whole answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: u32,
    message: String,
    /// The error of a stream that has not begun; otherwise a text.
    error: Option<InProblem>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum InProblem {
    OfStream(StreamProblem),
    Other(IgnoredAny),
}

/// The code of gRPC and the text of an error that is the whole answer, whether a stream was asked for or not.
pub(super) fn problem(bytes: &[u8]) -> Option<(u32, String)> {
    let problem: Problem = parse(bytes).ok()?;
    let (code, message) = match problem.error {
        Some(InProblem::OfStream(StreamProblem { grpc_code, message })) if problem.code == 0 => {
            (grpc_code, message)
        }
        _ => (problem.code, problem.message),
    };
    (code != 0).then_some((code, message))
}

/// Whether an answer with status 200 is one all the same.
pub(super) fn is_problem(bytes: &[u8]) -> bool {
    bytes.starts_with(br#"{"error":"#)
}

/// Reads an answer; the error says what is wrong with it.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// 64 bits are text in the JSON of protocol buffers; a number is taken too.
fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Number(i64),
    }
    match Form::deserialize(deserializer)? {
        Form::Number(number) => Ok(number),
        Form::Text(text) => text.parse().map_err(|_| D::Error::custom("a number of 64 bits expected")),
    }
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    decode(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn list_of_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| decode(text)).collect::<Result<_, _>>().map_err(D::Error::custom)
}

fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    STANDARD.decode(text).map_err(|_| "base64 expected")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_of_the_gateway_are_read() {
        let range: Range = parse(
            br#"{"header":{"cluster_id":"12101053776118486841","revision":"2"},
                "kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"Yg==","lease":"77"}],"count":"1"}"#,
        )
        .unwrap();
        assert_eq!((range.header.revision, range.more), (2, false));
        assert_eq!(range.kvs[0], Stored { key: b"a".to_vec(), value: b"b".to_vec(), mod_revision: 2 });
        let kept: Line<LeaseAnswer> =
            parse(br#"{"result":{"header":{"revision":1},"ID":"77","TTL":"10"}}"#).unwrap();
        assert_eq!(kept.result.map(|kept| (kept.id, kept.ttl)), Some((77, 10)));
        let gone: Line<LeaseAnswer> = parse(br#"{"result":{"ID":"78"}}"#).unwrap();
        assert_eq!(gone.result.unwrap().ttl, 0);
        let failed: Line<Watched> =
            parse(br#"{"error":{"grpc_code":14,"http_code":503,"message":"no leader"}}"#).unwrap();
        assert_eq!(failed.error.unwrap().grpc_code, 14);
        for bad in [
            &br#"{"kvs":{}}"#[..],
            br#"{"kvs":[{"key":"*"}]}"#,
            br#"{"kvs":[{"mod_revision":"9223372036854775808"}]}"#,
            br#"{"header":{"revision":1.5}}"#,
            b"<html>",
            b"",
        ] {
            assert!(parse::<Range>(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        // Nesting ends at the limit of the parser, not at that of the stack.
        assert!(parse::<Range>(&b"[".repeat(1 << 20)).is_err());
        assert!(parse::<Range>(&br#"{"x":"#.repeat(1 << 18)).is_err());
    }

    #[test]
    fn an_error_is_read_in_each_of_its_forms() {
        for (text, expected) in [
            (&br#"{"code":5,"message":"a","error":"a"}"#[..], Some((5, "a".to_owned()))),
            (br#"{"error":{"grpc_code":5,"http_code":404,"message":"a"}}"#, Some((5, "a".to_owned()))),
            (br#"{"error":{"code":5,"message":"a","details":[]}}"#, Some((5, "a".to_owned()))),
            (br#"{"code":5,"error":{"code":6,"message":"b"},"message":"a"}"#, Some((5, "a".to_owned()))),
            (br#"{"error":"a"}"#, None),
            (br#"{"error":{}}"#, None),
            (br#"{"error":null}"#, None),
            (b"<html>", None),
        ] {
            assert_eq!(problem(text), expected, "{}", String::from_utf8_lossy(text));
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>, text in r#"\{"(header|kvs|result|events|ID|keys)":[\[\]{}":,a-zA-Z0-9=-]{0,64}\}?"#) {
            for bytes in [&bytes, text.as_bytes()] {
                let _ = parse::<Range>(bytes);
                let _ = parse::<Transaction>(bytes);
                let _ = parse::<LeaseAnswer>(bytes);
                let _ = parse::<Line<Watched>>(bytes);
                let _ = problem(bytes);
            }
        }
    }
}
