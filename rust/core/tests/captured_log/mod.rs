//! Lines and spans that the engine logs in a test's process, at every level.
#![allow(dead_code, reason = "a module of each test that includes it, which uses its share")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The fields of a span, by name.
pub(crate) type SpanFields = BTreeMap<String, String>;

/// A line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) message: String,
    pub(crate) fields: BTreeMap<String, String>,
}

/// What has been logged so far.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    lines: Mutex<Vec<Line>>,
    /// Name and fields of those that have ended.
    spans: Mutex<Vec<(&'static str, SpanFields)>>,
}

impl Captured {
    /// The log of the process, for a test that no other one runs beside; it begins with the first call.
    pub(crate) fn alone() -> (MutexGuard<'static, ()>, &'static Self) {
        static LOG: OnceLock<Captured> = OnceLock::new();
        static START: Once = Once::new();
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = lock(&ALONE);
        let log = LOG.get_or_init(Self::default);
        START.call_once(|| tracing_subscriber::registry().with(Capture(log)).init());
        (alone, log)
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        lock(&self.lines).clone()
    }

    /// Lines of `level` and of more severe ones.
    pub(crate) fn at_least(&self, level: Level) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.level <= level).collect()
    }

    /// The spans of that name that have ended.
    pub(crate) fn ended_spans(&self, name: &str) -> Vec<SpanFields> {
        lock(&self.spans).iter().filter(|span| span.0 == name).map(|span| span.1.clone()).collect()
    }
}

struct Capture(&'static Captured);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Fields>().unwrap());
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap_or_default();
        lock(&self.0.lines).push(Line { level: *event.metadata().level(), message, fields: fields.0 });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let fields = span.extensions_mut().remove::<Fields>().unwrap();
        lock(&self.0.spans).push((span.name(), fields.0));
    }
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
