//! Requests to list files.

use super::session::Session;
use crate::error::{CliError, Result};
use crate::store::{Entry, Listed, RelativeName};
use crate::wire::{Frame, MAX_ENTRIES};

/// Most bytes of names in a frame: less than its limit, with room for one more name and for numbers.
const NAMES: usize = 16 << 10;
/// Most files of a listing: the client keeps them in memory.
const MOST: u64 = 1_000_000;

/// Entries that are to be sent together.
#[derive(Default)]
struct Batch {
    entries: Vec<Listed>,
    names: usize,
    files: u64,
    skipped: u64,
}

impl Session<'_> {
    /// Sends the names of all files in `folder`, or of the one file of that name.
    pub(super) fn list(&mut self, folder: &str) -> Result<()> {
        self.send_outbox(0)?;
        let mut batch = Batch::default();
        match self.send_entries(folder, &mut batch)? {
            Ok(()) => {
                self.control.send(&Frame::Entries { entries: batch.entries })?;
                Ok(self.control.send(&Frame::Listed { skipped: batch.skipped })?)
            }
            Err(error) => self.fail("list", folder, &error),
        }
    }

    /// The outer error is that of the stream.
    fn send_entries(&self, folder: &str, batch: &mut Batch) -> Result<Result<()>> {
        let mut lost = None;
        let mut visit = |entry| {
            self.add(entry, batch).map_err(|error| {
                let text = error.to_string();
                lost = Some(error);
                CliError::other(text)
            })
        };
        let walked = self.walk(folder, &mut visit);
        match lost {
            Some(error) => Err(error),
            None if batch.files > MOST => {
                Ok(Err(CliError::other(format!("more than {MOST} files; list or get one of its folders"))))
            }
            None => Ok(walked),
        }
    }

    fn walk(&self, folder: &str, visit: &mut impl FnMut(Entry) -> Result<()>) -> Result<()> {
        if folder.is_empty() {
            return self.server.directory.walk("", visit);
        }
        let name = RelativeName::new(folder)?;
        let (parent, last) = self.server.directory.folder_of(&name)?;
        match parent.listed(&last, &name)? {
            Some(file) => visit(Entry::File(file)),
            None => parent.folder(&last)?.walk(&format!("{name}/"), visit),
        }
    }

    fn add(&self, entry: Entry, batch: &mut Batch) -> Result<()> {
        match entry {
            // Beyond the limit nothing is sent.
            Entry::File(_) if batch.files > MOST => {}
            Entry::File(file) if RelativeName::new(&file.name).is_ok() => {
                batch.names += file.name.len();
                batch.files += 1;
                batch.entries.push(file);
                if batch.names > NAMES || batch.entries.len() == MAX_ENTRIES {
                    batch.names = 0;
                    self.control.send(&Frame::Entries { entries: std::mem::take(&mut batch.entries) })?;
                }
            }
            Entry::File(_) | Entry::Skipped { .. } => batch.skipped += 1,
        }
        Ok(())
    }
}
