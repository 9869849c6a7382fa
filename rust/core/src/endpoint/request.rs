//! The head of a request, from bytes.

/// Longest head of a request. A longer one is refused.
pub const MAX_HEAD: usize = 8 << 10;

/// Header fields of a request. One with more is refused.
const MAX_FIELDS: usize = 64;

/// What the bytes of a client are so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a request.
    Incomplete,
    /// A request.
    Complete(HttpRequest),
    /// No request that can be answered otherwise than by this status.
    Refused(HttpStatus),
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// What is asked for.
    pub page: Page,
    /// How.
    pub method: Method,
}

/// How a page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The page.
    Get,
    /// The head of the answer alone.
    Head,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/metrics`: the text for Prometheus.
    Metrics,
    /// `/snapshot`: metrics, slow transfers and events in JSON.
    Snapshot,
    /// `/healthz`: whether the engines can work.
    Health,
}

/// The status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "RFC 9110 documents them")]
pub enum HttpStatus {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    ContentTooLarge,
    HeaderFieldsTooLarge,
    InternalServerError,
    ServiceUnavailable,
    VersionNotSupported,
}

impl HttpStatus {
    /// Number and reason, as they stand in an answer.
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad HttpRequest",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 HttpRequest Timeout",
            Self::ContentTooLarge => "413 Content Too Large",
            Self::HeaderFieldsTooLarge => "431 HttpRequest Header Fields Too Large",
            Self::InternalServerError => "500 Internal Server Error",
            Self::ServiceUnavailable => "503 Service Unavailable",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// Parses what a client has sent so far; what follows the head is ignored.
pub fn parse(bytes: &[u8]) -> Parsed {
    let head = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() == MAX_HEAD => {
            return Parsed::Refused(HttpStatus::HeaderFieldsTooLarge);
        }
        Ok(httparse::Status::Partial) => return Parsed::Incomplete,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(HttpStatus::HeaderFieldsTooLarge),
        Err(httparse::Error::Version) => return Parsed::Refused(HttpStatus::VersionNotSupported),
        Err(_) => return Parsed::Refused(HttpStatus::BadRequest),
    }
    if request.headers.iter().any(announces_content) {
        return Parsed::Refused(HttpStatus::ContentTooLarge);
    }
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => return Parsed::Refused(HttpStatus::MethodNotAllowed),
    };
    match request.path.and_then(page_of) {
        Some(page) => Parsed::Complete(HttpRequest { page, method }),
        None => Parsed::Refused(HttpStatus::NotFound),
    }
}

/// Whether a field says that a body follows, which no page takes.
fn announces_content(field: &httparse::Header<'_>) -> bool {
    let is = |name: &str| field.name.eq_ignore_ascii_case(name);
    is("transfer-encoding") || (is("content-length") && field.value.trim_ascii() != b"0")
}

/// The page of a request's target, which may have a query, and may be a URL.
fn page_of(target: &str) -> Option<Page> {
    let path = match target.split_once("://") {
        Some(("http", rest)) => rest.get(rest.find('/')?..)?,
        _ => target,
    };
    match path.split('?').next()? {
        "/metrics" => Some(Page::Metrics),
        "/snapshot" => Some(Page::Snapshot),
        "/healthz" => Some(Page::Health),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(page: Page) -> Parsed {
        Parsed::Complete(HttpRequest { page, method: Method::Get })
    }

    #[test]
    fn requests() {
        for (text, parsed) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", get(Page::Metrics)),
            ("GET /snapshot?pretty HTTP/1.0\n\n", get(Page::Snapshot)),
            ("GET http://host:9400/healthz HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", get(Page::Health)),
            ("GET /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", get(Page::Metrics)),
            ("", Parsed::Incomplete),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n", Parsed::Incomplete),
        ] {
            assert_eq!(parse(text.as_bytes()), parsed, "{text:?}");
        }
        let head = parse(b"HEAD /healthz HTTP/1.1\r\n\r\n");
        assert_eq!(head, Parsed::Complete(HttpRequest { page: Page::Health, method: Method::Head }));
    }

    #[test]
    fn refusals() {
        let long = format!("GET /metrics HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n", HttpStatus::NotFound),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", HttpStatus::NotFound),
            ("GET http://metrics HTTP/1.1\r\n\r\n", HttpStatus::NotFound),
            ("POST /metrics HTTP/1.1\r\n\r\n", HttpStatus::MethodNotAllowed),
            ("get /metrics HTTP/1.1\r\n\r\n", HttpStatus::MethodNotAllowed),
            ("GET /metrics HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\n", HttpStatus::ContentTooLarge),
            ("POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", HttpStatus::ContentTooLarge),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HttpStatus::VersionNotSupported),
            ("\x16\x03\x01\x02\0\x01", HttpStatus::BadRequest),
            ("GET /metrics HTTP/1.1\r\nA b\r\n\r\n", HttpStatus::BadRequest),
            (&long, HttpStatus::HeaderFieldsTooLarge),
            (&many, HttpStatus::HeaderFieldsTooLarge),
        ] {
            assert_eq!(parse(text.as_bytes()), Parsed::Refused(status), "{text:?}");
        }
    }

    proptest::proptest! {
        /// However the network cuts a request, it is not taken for another one before it has arrived.
        #[test]
        fn a_part_of_a_request_is_incomplete(page in "/(metrics|snapshot|healthz)", field in "[a-zA-Z-]{1,9}: [ -~]{0,30}") {
            proptest::prop_assume!(!field.to_ascii_lowercase().starts_with("content-length"));
            let text = format!("GET {page} HTTP/1.1\r\n{field}\r\n\r\n");
            proptest::prop_assert!(matches!(parse(text.as_bytes()), Parsed::Complete(_)), "{}", text);
            for end in 0..text.len() {
                proptest::prop_assert_eq!(parse(&text.as_bytes()[..end]), Parsed::Incomplete);
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
