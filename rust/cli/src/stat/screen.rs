//! Where tables are shown: renewed in place on a terminal, one after the other elsewhere.
//!
//! The terminal is left as it is, neither in raw mode nor on another screen and with its cursor: whatever ends this program has
//! nothing to restore, and the last table stays.

use std::io::{self, IsTerminal, Write};

use super::summary::Summary;
use super::view::{View, view};
use crate::output::{self, colour, terminal};

/// Width where there is no terminal: nothing is left out.
const UNBOUNDED: usize = 400;
/// Columns and rows of a terminal that does not say them.
const USUAL: (u16, u16) = (80, 24);
const YELLOW: &str = "33";

pub(super) struct Screen {
    /// On a terminal that can move the cursor.
    in_place: bool,
    /// Lines of the last table, and the terminal's columns and rows then.
    shown: usize,
    size: (u16, u16),
}

impl Screen {
    pub(super) fn new() -> Self {
        let in_place = io::stdout().is_terminal() && terminal::moves_cursor();
        Self { in_place, shown: 0, size: (0, 0) }
    }

    /// Shows a table, on a terminal in place of the last one.
    pub(super) fn show(&mut self, summary: &Summary) {
        if !self.in_place {
            let all = lines(&view(summary, UNBOUNDED), usize::MAX);
            for line in all {
                output::line(&line.text);
            }
            return output::line("");
        }
        let size = terminal::size(io::stdout()).unwrap_or(USUAL);
        let (width, height) = (usize::from(size.0), usize::from(size.1));
        let lines = lines(&view(summary, width), height.saturating_sub(1));
        // After a change of its size the terminal may have wrapped what was shown.
        let is_same = self.shown == 0 || self.size == size;
        let frame = frame(&lines, if is_same { Some(self.shown) } else { None }, colour::on(true));
        (self.shown, self.size) = (lines.len(), size);
        let mut out = io::stdout().lock();
        output::printed(out.write_all(frame.as_bytes()).and_then(|()| out.flush()));
    }
}

#[derive(Debug)]
struct Line {
    text: String,
    draws_attention: bool,
}

/// At most `height` lines: the peers and rails that do not fit are counted.
fn lines(view: &View, height: usize) -> Vec<Line> {
    let plain = |text: &String| Line { text: text.clone(), draws_attention: false };
    let blank = || Line { text: String::new(), draws_attention: false };
    let mut lines: Vec<_> = view.head.iter().map(plain).collect();
    lines.extend(view.channels.iter().map(marked));
    lines.push(blank());
    lines.extend(view.devices.iter().map(plain));
    lines.push(blank());
    // What follows the peers may take a third.
    let foot = view.foot.len().min(height / 3);
    let room = height.saturating_sub(lines.len() + foot + if foot > 0 { 1 } else { 0 });
    // The rails may take half of what is left for them and the peers, or what the peers leave.
    let gap = usize::from(!view.rails.is_empty());
    let of_rails = (view.rails.len() + gap).min((room / 2).max(room.saturating_sub(view.peers.len())));
    lines.extend(table(&view.peers, room - of_rails));
    if of_rails > gap {
        lines.push(blank());
        lines.extend(table(&view.rails, of_rails - gap));
    }
    if foot > 0 {
        lines.push(blank());
        // The newest are the last.
        lines.extend(view.foot.iter().skip(view.foot.len() - foot).map(plain));
    }
    lines.truncate(height);
    lines
}

/// At most `room` lines of a table; the last one counts those that do not fit.
fn table(rows: &[(String, bool)], room: usize) -> Vec<Line> {
    let fits = rows.len() <= room;
    let shown = if fits { rows.len() } else { room.saturating_sub(1) };
    let mut lines: Vec<_> = rows.iter().take(shown).map(marked).collect();
    if !fits {
        let text = format!("and {} more: a larger terminal, or --json, shows them", rows.len() - shown);
        lines.push(Line { text, draws_attention: false });
    }
    lines
}

fn marked((text, draws_attention): &(String, bool)) -> Line {
    Line { text: text.clone(), draws_attention: *draws_attention }
}

/// The lines, over those of the last frame. `None`: on an empty screen.
fn frame(lines: &[Line], last: Option<usize>, has_colours: bool) -> String {
    let mut frame = match last {
        None => "\x1b[H\x1b[J".to_owned(),
        Some(0) => String::new(),
        Some(last) => format!("\x1b[{last}A\r\x1b[J"),
    };
    for Line { text, draws_attention } in lines {
        match *draws_attention && has_colours {
            true => frame.push_str(&format!("{}\n", colour::painted(text, YELLOW))),
            false => frame.push_str(&format!("{text}\n")),
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_view(peers: usize, foot: usize) -> View {
        a_view_with_rails(peers, 0, foot)
    }

    fn a_view_with_rails(peers: usize, rails: usize, foot: usize) -> View {
        let numbered = |name: &str, count: usize| {
            (0..count).map(|number| format!("{name} {number}")).collect::<Vec<_>>()
        };
        View {
            head: numbered("head", 2),
            channels: None,
            devices: numbered("device", 2),
            peers: numbered("peer", peers).into_iter().map(|text| (text, true)).collect(),
            rails: numbered("rail", rails).into_iter().map(|text| (text, true)).collect(),
            foot: numbered("event", foot),
        }
    }

    #[test]
    fn a_small_terminal_is_not_exceeded() {
        for height in 0..40 {
            for (peers, foot) in [(1, 0), (100, 10), (3, 10)] {
                let mut view = a_view(peers, foot);
                assert!(lines(&view, height).len() <= height);
                view.channels = Some(("control channels".to_owned(), true));
                let lines = lines(&view, height);
                assert!(lines.len() <= height && (height < 3 || lines[2].draws_attention));
            }
        }
        let shown: Vec<_> = lines(&a_view(100, 10), 20).into_iter().map(|line| line.text).collect();
        assert_eq!(shown[6], "peer 0");
        assert_eq!(shown[12], "and 94 more: a larger terminal, or --json, shows them");
        assert_eq!(shown[19], "event 9");
        let all = lines(&a_view(100, 10), usize::MAX);
        assert_eq!(all.len(), 4 + 2 + 100 + 1 + 10);
    }

    #[test]
    fn rails_share_what_is_left_with_the_peers() {
        let texts = |view: &View, height| -> Vec<String> {
            lines(view, height).into_iter().map(|line| line.text).collect()
        };
        for height in 0..60 {
            for (peers, rails, foot) in [(1, 9, 0), (100, 9, 10), (100, 90, 10), (3, 90, 1)] {
                assert!(texts(&a_view_with_rails(peers, rails, foot), height).len() <= height);
            }
        }
        let few = texts(&a_view_with_rails(2, 3, 1), 40);
        assert_eq!(few[6..], ["peer 0", "peer 1", "", "rail 0", "rail 1", "rail 2", "", "event 0"]);
        let many = texts(&a_view_with_rails(100, 9, 0), 26);
        assert_eq!(many[14..17], ["peer 8", "and 91 more: a larger terminal, or --json, shows them", ""]);
        assert_eq!(many[17..19], ["rail 0", "rail 1"]);
        assert_eq!(many.last().map(String::as_str), Some("rail 8"));
    }

    #[test]
    fn a_frame_covers_the_last_one() {
        let line = |draws_attention| Line { text: "a".to_owned(), draws_attention };
        assert_eq!(frame(&[line(true)], Some(0), true), "\x1b[33ma\x1b[0m\n");
        assert_eq!(frame(&[line(true)], Some(2), false), "\x1b[2A\r\x1b[Ja\n");
        assert_eq!(frame(&[line(false)], None, true), "\x1b[H\x1b[Ja\n");
    }
}
