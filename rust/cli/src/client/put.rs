//! `put`: files, folders and standard input to a server, over one connection.

use std::thread::JoinHandle;
use std::{io, thread};

use super::opening::Opening;
use super::results::Results;
use super::upload::Upload;
use super::{Client, Moved, PutOptions, Style, sources};
use crate::error::{CliError, Result, While};
use crate::interrupt::{self, Kept};
use crate::output::progress::Progress;
use crate::store::{Content, LastFolder};

/// Runs `put`.
pub(crate) fn put(options: &PutOptions) -> Result<()> {
    options.server.check()?;
    // It connects while sources are looked up: what is wrong with one of them still comes before anything is sent of it.
    let server = options.server.clone();
    let connect = thread::Builder::new()
        .name("connect".into())
        .spawn(move || server.reach(|address| Opening::connect(address, None)));
    let mut found = sources::find(options)?;
    let what = match (found.single, found.items.first()) {
        (true, Some(item)) => format!("put {}", item.name),
        _ => "put".to_owned(),
    };
    let is_stream = found.items.iter().any(|item| item.size.is_none());
    interrupt::handle(if is_stream { Kept::NOTHING } else { Kept::PARTS })?;
    let doing = format!("{what} to {}", options.server);
    let shape = found.files().map_or(options.shape, |files| options.shape.needed_for(files));
    let client = connected(connect).and_then(|opening| opening.allocate(shape)).doing(|| doing.clone())?;
    client.remark_on_ring(shape);
    let total = found.items.iter().map(|item| item.size).sum();
    let progress = Progress::new(&what, total, found.items.len() as u64, options.style == Style::Quiet);
    let path = client.info().path.to_string();
    let mut results =
        Results::new(("put", doing.clone()), options.style, (found.single, false), path, &progress);
    results.skipped(found.skipped);
    let folders = &mut found.folders[..];
    let done =
        send(&client, (found.items, folders), (options.force, options.resume), &progress, &mut results);
    results.finish(done)
}

/// What the thread that connects has.
fn connected(connecting: io::Result<JoinHandle<Result<Opening>>>) -> Result<Opening> {
    let connecting = connecting.map_err(|error| CliError::other(format!("start a thread: {error}")))?;
    connecting.join().unwrap_or_else(|_| Err(CliError::other("a thread ended by a panic")))
}

fn send(
    client: &Client,
    (items, folders): (Vec<sources::Item>, &mut [LastFolder]),
    settings: (bool, bool),
    progress: &Progress,
    results: &mut Results<'_>,
) -> Result<()> {
    let mut ended = |name: &str, moved| results.ended(name, moved);
    let mut upload = Upload::new(client, settings, progress, &mut ended);
    for item in items {
        match item.open(folders) {
            Ok((name, content)) => upload.add(content, &name)?,
            Err((name, error)) => upload.failed(&name, error),
        }
    }
    upload.finish()
}

impl Client {
    /// Stores `content` on the server as `name`.
    pub(crate) fn put(&self, content: Content, name: &str, force: bool) -> Result<Moved> {
        let progress = Progress::new(&format!("put {name}"), content.size(), 1, false);
        let mut moved = None;
        let mut ended = |_: &str, result| moved = Some(result);
        let mut upload = Upload::new(self, (force, false), &progress, &mut ended);
        upload.add(content, name)?;
        upload.finish()?;
        progress.finish();
        moved.unwrap_or_else(|| Err(CliError::protocol("no answer")))
    }
}
