//! The trace that a piece of work belongs to, as it travels between processes: W3C Trace Context, `traceparent`.
//! It travels, and is in the log, also where no spans are exported.
//! Source: <https://www.w3.org/TR/trace-context/#traceparent-header>.

use std::{cell::Cell, fmt, future::Future, str::FromStr};

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt, TraceState},
};
use opentelemetry_sdk::trace::IdGenerator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::ids;

/// The name of the header, and of the message attribute.
pub const TRACEPARENT: &str = "traceparent";

/// One span of a trace, as its children know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: TraceId,
    span_id: SpanId,
    flags: TraceFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
pub struct InvalidTraceparent;

impl TraceContext {
    fn as_parent(self) -> Context {
        let Self { trace_id, span_id, flags } = self;
        Context::new().with_remote_span_context(SpanContext::new(trace_id, span_id, flags, true, TraceState::default()))
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    /// A later version may have more fields: they are ignored, as the standard says.
    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let mut fields = text.split('-');
        let mut field = |length: usize| {
            let hex = fields.next().filter(|field| field.len() == length)?;
            hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(hex)
        };
        let read = (|| Some((field(2)?, field(32)?, field(16)?, field(2)?)))();
        let (version, trace_id, span_id, flags) = read.ok_or(InvalidTraceparent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| InvalidTraceparent)?;
        let context = Self {
            trace_id: TraceId::from_hex(trace_id).map_err(|_| InvalidTraceparent)?,
            span_id: SpanId::from_hex(span_id).map_err(|_| InvalidTraceparent)?,
            flags: TraceFlags::new(flags) & TraceFlags::SAMPLED,
        };
        let known = version != "ff" && (version != "00" || fields.next().is_none());
        let valid = context.trace_id != TraceId::INVALID && context.span_id != SpanId::INVALID;
        if known && valid { Ok(context) } else { Err(InvalidTraceparent) }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags.to_u8())
    }
}

/// What a span is in its trace.
#[derive(Debug, Clone, Copy)]
pub struct Role<'a> {
    /// What the trace shows: few different ones, without ids.
    pub name: &'a str,
    /// `server`, `producer`, `consumer` or `client`.
    pub kind: &'a str,
}

/// The trace of a piece of work whose span is made next: the one it was asked for in, or a new one.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// For the span's field `trace_id`.
    pub trace_id: TraceId,
    parent: Option<TraceContext>,
}

impl Origin {
    pub fn of(parent: Option<TraceContext>) -> Self {
        Self { trace_id: parent.map_or_else(new_trace_id, |parent| parent.trace_id), parent }
    }

    /// The same, from a header or a stored text. What cannot be read begins a new trace.
    pub fn read(traceparent: Option<&str>) -> Self {
        Self::of(traceparent.and_then(|text| text.parse().ok()))
    }

    /// Makes `span` a part of the trace; returns what its children are told. It must have the fields `otel.name` and
    /// `otel.kind`, both empty. Where nothing is exported the parent is passed on as it came.
    pub fn join(self, span: &Span, role: Role<'_>) -> TraceContext {
        let parent = self.parent.map_or_else(Context::new, TraceContext::as_parent);
        if span.set_parent(parent).is_err() {
            let new = || TraceContext { trace_id: self.trace_id, span_id: new_span_id(), flags: TraceFlags::default() };
            return self.parent.unwrap_or_else(new);
        }
        span.record("otel.name", role.name);
        span.record("otel.kind", role.kind);
        BEGUN.set(Some(self.trace_id));
        let own = span.context().span().span_context().clone();
        BEGUN.set(None);
        TraceContext { trace_id: own.trace_id(), span_id: own.span_id(), flags: own.trace_flags() }
    }
}

thread_local! {
    /// The trace that the next root span is to begin.
    static BEGUN: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// The exporter's source of ids: a trace has the id that is in the log already.
#[derive(Debug)]
pub(crate) struct OwnIds;

impl IdGenerator for OwnIds {
    fn new_trace_id(&self) -> TraceId {
        BEGUN.take().unwrap_or_else(new_trace_id)
    }

    fn new_span_id(&self) -> SpanId {
        new_span_id()
    }
}

/// Without random bits there is no trace: an id of zeros is read by nobody.
fn new_trace_id() -> TraceId {
    ids::random_bytes().map_or(TraceId::INVALID, TraceId::from_bytes)
}

fn new_span_id() -> SpanId {
    ids::random_bytes().map_or(SpanId::INVALID, SpanId::from_bytes)
}

/// Marks `span` as failed in its trace.
pub fn failed(span: &Span) {
    span.set_status(opentelemetry::trace::Status::error(""));
}

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Runs work, and what it awaits, as a part of a trace. What it spawns is on its own.
pub async fn within<F: Future>(context: TraceContext, work: F) -> F::Output {
    CURRENT.scope(context, work).await
}

/// The trace that the present work is a part of, in the form in which it is stored and sent.
pub fn current() -> Option<String> {
    CURRENT.try_with(ToString::to_string).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[rstest]
    #[case(SAMPLED, Some(SAMPLED))]
    #[case(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
    )]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", Some(SAMPLED))] // only the flags that we know
    #[case("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", Some(SAMPLED))]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", None)]
    #[case("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None)]
    #[case("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None)]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None)]
    #[case("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None)]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None)]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", None)]
    #[case("00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None)]
    #[case("", None)]
    fn a_traceparent_is_read_as_the_standard_says(#[case] text: &str, #[case] read: Option<&str>) {
        let context = text.parse::<TraceContext>().ok();
        assert_eq!(context.map(|context| context.to_string()).as_deref(), read);
    }

    #[test]
    fn without_an_exporter_the_trace_is_passed_on_as_it_came() {
        let role = Role { name: "x", kind: "server" };
        let passed_on = Origin::read(Some(SAMPLED)).join(&Span::none(), role);
        assert_eq!(passed_on.to_string(), SAMPLED);
    }

    #[test]
    fn without_a_parent_a_trace_begins_that_others_can_read() {
        let origins = [None, Some("junk")].map(Origin::read);
        let begun = origins.map(|origin| origin.join(&Span::none(), Role { name: "x", kind: "server" }));
        assert_ne!(begun[0].trace_id, begun[1].trace_id);
        assert_eq!(begun[0].trace_id, origins[0].trace_id);
        assert_eq!(begun[0].to_string().parse(), Ok(begun[0]));
    }

    #[tokio::test]
    async fn the_present_trace_is_known_to_what_is_awaited() {
        assert_eq!(current(), None);
        let context = SAMPLED.parse().unwrap();
        assert_eq!(within(context, async { current() }).await.as_deref(), Some(SAMPLED));
    }
}
