//! An answer, as its bytes are sent.

use super::request::{HttpStatus, Method};

/// A status with its page.
#[derive(Clone, Debug)]
pub(super) struct HttpResponse {
    pub(super) status: HttpStatus,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

/// The text format that Prometheus asks for first.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(super) const JSON: &str = "application/json";
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

impl HttpResponse {
    /// A line of text.
    pub(super) fn line(status: HttpStatus, text: &str) -> Self {
        Self { status, content_type: PLAIN, body: format!("{text}\n") }
    }

    /// Why a request is not answered with a page.
    pub(super) fn refusal(status: HttpStatus) -> Self {
        let text = match status {
            HttpStatus::NotFound => "the pages are /metrics, /snapshot and /healthz",
            HttpStatus::MethodNotAllowed => "GET and HEAD are allowed",
            HttpStatus::ContentTooLarge => "a request has no body here",
            HttpStatus::HeaderFieldsTooLarge => "the head of a request has at most 8 KiB and 64 fields",
            HttpStatus::RequestTimeout => "a request must arrive within 5 s",
            other => other.line(),
        };
        Self::line(status, text)
    }

    /// Its bytes. The connection ends with it.
    pub(super) fn encode(&self, method: Method) -> String {
        let Self { status, content_type, body } = self;
        let allow = if *status == HttpStatus::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
        let mut text = format!(
            "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{allow}Connection: close\r\n\r\n",
            status.line(),
            body.len()
        );
        if method == Method::Get {
            text.push_str(body);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_long_the_page_would_be() {
        let answer = HttpResponse::line(HttpStatus::Ok, "ok");
        let page = answer.encode(Method::Get);
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\nok\n"), "{page}");
        assert_eq!(answer.encode(Method::Head), page.strip_suffix("ok\n").unwrap());
        assert!(page.contains("Content-Length: 3\r\n"));
        let refusal = HttpResponse::refusal(HttpStatus::MethodNotAllowed).encode(Method::Get);
        assert!(refusal.contains("\r\nAllow: GET, HEAD\r\n"), "{refusal}");
    }
}
