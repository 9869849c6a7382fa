//! Rows in columns, within the width of the terminal. Where they do not fit, the least important columns are left out;
//! comfy-table, which other commands use, would wrap cells, and a table that is renewed in place keeps its height.

/// A column: its heading, and how important it is. Those of rank 0 are never left out.
pub(super) struct Column {
    pub(super) heading: &'static str,
    pub(super) rank: u8,
}

/// Spaces between columns.
const GAP: usize = 2;

/// The heading and the rows as lines of at most `width` characters. The first column is aligned left, others right.
pub(super) fn lines(columns: &[Column], rows: &[Vec<String>], width: usize) -> Vec<String> {
    let widths: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
            cells.chain([column.heading.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needs = |shown: &[usize]| {
        shown.iter().filter_map(|index| widths.get(*index)).map(|width| width + GAP).sum::<usize>()
    };
    while needs(&shown) > width + GAP {
        let rank = |index: &usize| columns.get(*index).map_or(0, |column| column.rank);
        // Of equal ones the last.
        let Some((place, _)) = shown
            .iter()
            .enumerate()
            .filter(|(_, index)| rank(index) > 0)
            .max_by_key(|(_, index)| rank(index))
        else {
            break;
        };
        shown.remove(place);
    }
    let heading: Vec<String> = columns.iter().map(|column| column.heading.to_owned()).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (place, index) in shown.iter().enumerate() {
            let (cell, cell_width) =
                (row.get(*index).map_or("", String::as_str), widths.get(*index).copied().unwrap_or(0));
            match place {
                0 => line.push_str(&format!("{cell:<cell_width$}")),
                _ => line.push_str(&format!("{:GAP$}{cell:>cell_width$}", "")),
            }
        }
        cut(line.trim_end(), width)
    };
    std::iter::once(&heading).chain(rows).map(line).collect()
}

/// The text within `width` characters, without characters that would act on the terminal.
pub(super) fn cut(text: &str, width: usize) -> String {
    let clean = |letter: char| if letter.is_control() { ' ' } else { letter };
    if text.chars().count() <= width {
        return text.chars().map(clean).collect();
    }
    text.chars().take(width.saturating_sub(1)).map(clean).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column { heading: "peer", rank: 0 },
        Column { heading: "path", rank: 2 },
        Column { heading: "GB/s", rank: 0 },
        Column { heading: "retries", rank: 3 },
    ];

    fn rows() -> Vec<Vec<String>> {
        [["10.0.0.2:40000", "tcp", "1.25", "3"], ["a", "rdma", "12.00", "0"]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    #[test]
    fn columns_are_aligned_and_left_out_by_rank() {
        assert_eq!(
            lines(COLUMNS, &rows(), 80),
            [
                "peer            path   GB/s  retries",
                "10.0.0.2:40000   tcp   1.25        3",
                "a               rdma  12.00        0"
            ]
        );
        assert_eq!(lines(COLUMNS, &rows(), 30)[1], "10.0.0.2:40000   tcp   1.25");
        assert_eq!(lines(COLUMNS, &rows(), 22)[1], "10.0.0.2:40000   1.25");
        assert_eq!(lines(COLUMNS, &rows(), 10)[1], "10.0.0.2:…");
    }

    #[test]
    fn nothing_acts_on_the_terminal() {
        assert_eq!(cut("a\x1b[2Jb\n", 80), "a [2Jb ");
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_wider(width in 0_usize..120, cell in ".{0,40}") {
            let rows = [vec![cell.clone(), cell.clone(), cell.clone(), cell]];
            for line in lines(COLUMNS, &rows, width) {
                proptest::prop_assert!(line.chars().count() <= width.max(1));
            }
        }
    }
}
