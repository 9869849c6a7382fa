//! What the terminal is like.

use std::os::fd::AsFd;

/// Its columns and rows; `None` where there is no terminal, or one that does not say it.
pub(crate) fn size(stream: impl AsFd) -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some((size.ws_col, size.ws_row)).filter(|(columns, rows)| *columns > 0 && *rows > 0)
}

/// Whether the cursor can be moved on a terminal.
pub(crate) fn moves_cursor() -> bool {
    std::env::var("TERM").is_ok_and(|term| !term.is_empty() && term != "dumb")
}
