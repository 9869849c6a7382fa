//! One client: a request, its answer, the end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::answer::HttpResponse;
use super::collector::Collector;
use super::progress::{Phase, Progress};
use super::request::{HttpRequest, HttpStatus, MAX_HEAD, Method, Parsed, parse};
use crate::events::{EventLoopHandle, Interest, Waiter, first};
use crate::fork::OwnSocket;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until its request has arrived.
    pub(super) request: Duration,
    /// Until the answer is made, and taken.
    pub(super) answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request: Duration::from_secs(5), answer: Duration::from_secs(10) }
    }
}

/// How long, and how many bytes, a client may go on sending after its answer. Closing at once would reset the connection, and
/// with it what the client has not read yet.
const DRAIN_LIMIT: (Duration, usize) = (Duration::from_secs(1), 64 << 10);
/// Bytes written without waiting before the task yields to others on the loop.
const SHARE: usize = 64 << 10;

pub(super) type Stream = OwnSocket<OwnedFd>;

/// Serves one request, and notes in `progress` how far it is.
pub(super) async fn serve(
    stream: Stream,
    limits: Limits,
    handle: EventLoopHandle,
    collector: &Collector,
    progress: &Progress,
) {
    let waiter = Waiter::on_loop(&handle);
    let served = async {
        let request = read_request(&stream, Instant::now() + limits.request, &waiter).await;
        progress.note(Phase::Waiting);
        let deadline = Instant::now() + limits.answer;
        let (method, answer) = match request? {
            Ok(HttpRequest { page, method }) => {
                let late = async {
                    handle.sleep_until(Some(deadline)).await;
                    None
                };
                let answer = first(collector.page(page), late).await;
                (method, answer.unwrap_or_else(|| HttpResponse::refusal(HttpStatus::ServiceUnavailable)))
            }
            Err(status) => (Method::Get, HttpResponse::refusal(status)),
        };
        let bytes = answer.encode(method);
        drop(answer);
        progress.note(Phase::Reading);
        write(&stream, bytes.as_bytes(), deadline, &waiter, progress).await?;
        drop(bytes);
        shutdown(&stream, Shutdown::Write)?;
        progress.note(Phase::Ending);
        drain(&stream, &waiter).await
    };
    if let Err(error) = served.await {
        tracing::debug!("a client of the metrics endpoint ended early: {error}");
    }
}

/// The request of a client, or with which status it is refused. An error when it has ended.
async fn read_request(
    stream: &Stream,
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<Result<HttpRequest, HttpStatus>> {
    let (mut head, mut filled) = ([0_u8; MAX_HEAD], 0);
    loop {
        let room = head.get_mut(filled..).unwrap_or_default();
        match recv(stream, room, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, count)) => filled += count,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => match waiter.ready(stream.as_fd(), Interest::Read, Some(deadline)).await {
                Ok(()) => continue,
                // One that has sent nothing does not wait for an answer.
                Err(error) if error.kind() == io::ErrorKind::TimedOut && filled > 0 => {
                    return Ok(Err(HttpStatus::RequestTimeout));
                }
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error.into()),
        }
        match parse(head.get(..filled).unwrap_or_default()) {
            Parsed::Complete(request) => return Ok(Ok(request)),
            Parsed::Refused(status) => return Ok(Err(status)),
            Parsed::Incomplete if Instant::now() >= deadline => return Ok(Err(HttpStatus::RequestTimeout)),
            Parsed::Incomplete => {}
        }
    }
}

async fn write(
    stream: &Stream,
    bytes: &[u8],
    deadline: Instant,
    waiter: &Waiter,
    progress: &Progress,
) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        let part = left.get(..SHARE).unwrap_or(left);
        match send(stream, part, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => {
                left = left.get(count..).unwrap_or_default();
                progress.note(Phase::Reading);
            }
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => waiter.ready(stream.as_fd(), Interest::Write, Some(deadline)).await?,
            Err(error) => return Err(error.into()),
        }
        if !left.is_empty() {
            waiter.give_way().await;
        }
    }
    Ok(())
}

/// Reads until the client ends, within bounds.
async fn drain(stream: &Stream, waiter: &Waiter) -> io::Result<()> {
    let (mut room, mut total, deadline) = ([0_u8; 4096], 0, Instant::now() + DRAIN_LIMIT.0);
    while total < DRAIN_LIMIT.1 {
        match recv(stream, &mut room, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Ok(()),
            Ok((_, count)) => total += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => waiter.ready(stream.as_fd(), Interest::Read, Some(deadline)).await?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
