//! `put`: files, folders and standard input to a server, over one connection.

use super::results::Results;
use super::upload::Upload;
use super::{Client, Moved, PutOptions, Style, sources};
use crate::error::{CliError, Result, While};
use crate::interrupt::{self, Kept};
use crate::output::progress::Progress;
use crate::store::Content;

/// Runs `put`.
pub(crate) fn put(options: &PutOptions) -> Result<()> {
    let found = sources::find(options)?;
    let what = match (found.single, found.items.first()) {
        (true, Some(item)) => format!("put {}", item.name),
        _ => "put".to_owned(),
    };
    let is_stream = found.items.iter().any(|item| item.size.is_none());
    interrupt::handle(if is_stream { Kept::NOTHING } else { Kept::PARTS })?;
    let doing = format!("{what} to {}", options.server);
    let client = Client::connect(&options.server, options.shape).doing(|| doing.clone())?;
    client.remark_on_ring(options.shape);
    let total = found.items.iter().map(|item| item.size).sum();
    let progress = Progress::new(&what, total, found.items.len() as u64, options.style == Style::Quiet);
    let path = client.info().path.to_string();
    let mut results =
        Results::new(("put", doing.clone()), options.style, (found.single, false), path, &progress);
    results.skipped(found.skipped);
    let done = send(&client, found.items, (options.force, options.resume), &progress, &mut results);
    results.finish(done)
}

fn send(
    client: &Client,
    items: Vec<sources::Item>,
    settings: (bool, bool),
    progress: &Progress,
    results: &mut Results<'_>,
) -> Result<()> {
    let mut ended = |name: &str, moved| results.ended(name, moved);
    let mut upload = Upload::new(client, settings, progress, &mut ended);
    for item in items {
        match item.open() {
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
