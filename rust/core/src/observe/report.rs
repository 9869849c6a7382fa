//! Events, in one call: an entry of the event log, and a log line with the same text.

/// Peer and device of an event, as far as it has them.
#[derive(Debug, Default)]
pub(crate) struct About {
    pub(crate) peer: Option<String>,
    pub(crate) device: Option<String>,
}

/// Records an event and writes its log line: `report!(warn, LaneGivenUp, peer = address, "lane {lane}: {reason}")`. The level is one of
/// `tracing`, the kind one of [`EventKind`](super::EventKind); `peer` and `device` are what it is about, if it has them, and further fields of the line follow these in brackets. At most
/// [`LINES`](super::event_log::LINES) lines of a kind are written in ten seconds; the next one tells how many are missing. The event
/// log has them all.
macro_rules! report {
    ($level:ident, $kind:ident, $($about:ident = $value:expr,)* [$($field:ident = $of:expr),+], $text:literal) => {{
        let text = format!($text);
        let mut full = text.clone();
        $(full.push_str(&format!(", {} {}", stringify!($field), $of));)+
        let about = $crate::observe::About {
            $($about: Some($value.to_string()),)*
            ..$crate::observe::About::default()
        };
        if let Some(missing) = $crate::observe::event_log().report($crate::observe::EventKind::$kind, about, &full) {
            tracing::$level!($($field = $of,)+ $($about = %$value,)* "{text}{missing}");
        }
    }};
    ($level:ident, $kind:ident, $($about:ident = $value:expr,)* $text:literal $(, $argument:expr)* $(,)?) => {{
        let text = format!($text $(, $argument)*);
        #[allow(clippy::needless_update, reason = "an event may name both")]
        let about = $crate::observe::About {
            $($about: Some($value.to_string()),)*
            ..$crate::observe::About::default()
        };
        if let Some(missing) = $crate::observe::event_log().report($crate::observe::EventKind::$kind, about, &text) {
            tracing::$level!($($about = %$value,)* "{text}{missing}");
        }
    }};
}
pub(crate) use report;
