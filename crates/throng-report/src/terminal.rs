//! Tables for a terminal of a given width. No text of a run reaches the terminal as a control sequence.

use unicode_width::UnicodeWidthStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Border {
    None,
    Box,
}

/// Narrower terminals are treated as this wide.
pub const NARROWEST: usize = 30;
/// The first column keeps at least this much room while others can be dropped.
const NAME_ROOM: usize = 16;
/// Lines that a name may take.
const CELL_LINES: usize = 4;

pub struct Grid {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// Columns that may be left out where there is no room, the least important first.
    pub optional: Vec<usize>,
}

impl Grid {
    /// The first column is left-aligned and wraps where room is short; figures are never cut.
    pub fn render(&self, width: usize, border: Border) -> String {
        let width = width.max(NARROWEST);
        let mut columns: Vec<usize> = (0..self.head.len()).collect();
        let mut optional = self.optional.iter();
        let name_room = self.longest(0).min(NAME_ROOM);
        while self.needed(&columns, border) + name_room > width {
            match optional.next() {
                Some(drop) => columns.retain(|c| c != drop),
                None => break,
            }
        }
        let name = self.longest(0).min(width.saturating_sub(self.needed(&columns, border))).max(4);
        let widths: Vec<usize> =
            columns.iter().map(|c| if *c == 0 { name } else { self.longest(*c) }).collect();
        let mut out = String::new();
        let line = |cells: &[String]| -> String {
            let names = cell_lines(cells.first().map_or("", String::as_str), name);
            let mut text = String::new();
            for (index, part) in names.iter().enumerate() {
                let cell = |c: usize| match (c, index) {
                    (0, _) => part.as_str(),
                    (_, 0) => cells.get(c).map_or("", String::as_str),
                    _ => "",
                };
                let padded: Vec<String> =
                    columns.iter().zip(&widths).map(|(c, room)| pad(cell(*c), *room, *c == 0)).collect();
                match border {
                    Border::None => text.push_str(padded.join("  ").trim_end()),
                    Border::Box => text.push_str(&format!("│ {} │", padded.join(" │ "))),
                }
                text.push('\n');
            }
            text
        };
        let rule = |left: char, middle: &str, right: char| {
            let parts: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
            format!("{left}{}{right}\n", parts.join(middle))
        };
        if border == Border::Box {
            out.push_str(&rule('┌', "┬", '┐'));
        }
        out.push_str(&line(&self.head));
        if border == Border::Box {
            out.push_str(&rule('├', "┼", '┤'));
        }
        for row in &self.rows {
            out.push_str(&line(row));
        }
        if border == Border::Box {
            out.push_str(&rule('└', "┴", '┘'));
        }
        out
    }

    fn longest(&self, column: usize) -> usize {
        let cells = self.rows.iter().chain([&self.head]).filter_map(|row| row.get(column));
        cells.map(|cell| plain(cell).width()).max().unwrap_or(0)
    }

    /// Columns taken by everything but the first column's text.
    fn needed(&self, columns: &[usize], border: Border) -> usize {
        let (gap, edge) = if border == Border::Box { (3, 4) } else { (2, 0) };
        let texts: usize = columns.iter().filter(|c| **c != 0).map(|c| self.longest(*c)).sum();
        texts + gap * columns.len().saturating_sub(1) + edge
    }
}

/// The text on one line without control characters.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !crate::svg::turns_text(*c))
        .collect()
}

/// The words of a cell in at most [`CELL_LINES`] lines; what is left is cut in the last one.
fn cell_lines(text: &str, room: usize) -> Vec<String> {
    let text = plain(text);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let blank = usize::from(!lines[last].is_empty());
        if blank == 1 && lines[last].width() + blank + word.width() > room && lines.len() < CELL_LINES {
            lines.push(word.to_string());
        } else {
            lines[last].push_str(&" ".repeat(blank));
            lines[last].push_str(word);
        }
    }
    lines
}

/// Cut or filled to exactly `room` columns.
fn pad(text: &str, room: usize, left: bool) -> String {
    let text = fit(&plain(text), room);
    let blank = " ".repeat(room.saturating_sub(text.width()));
    if left { format!("{text}{blank}") } else { format!("{blank}{text}") }
}

fn fit(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.into();
    }
    let mut out = String::new();
    for c in text.chars() {
        let mut longer = out.clone();
        longer.push(c);
        if longer.width() + 1 > room {
            break;
        }
        out = longer;
    }
    out.push('…');
    out
}

/// Words in lines of at most `width` columns, the first after `first` and the others after as many blanks.
pub fn wrap(first: &str, text: &str, width: usize) -> String {
    let width = width.max(NARROWEST);
    let indent = " ".repeat(first.width());
    let mut out = String::new();
    let mut line = first.to_string();
    let mut empty = true;
    for word in plain(text).split_whitespace() {
        let mut word = word;
        if !empty && line.width() + 1 + word.width() > width {
            out.push_str(line.trim_end());
            out.push('\n');
            line = indent.clone();
            empty = true;
        }
        // A word longer than a line is broken where the line ends.
        while line.width() + word.width() + usize::from(!empty) > width {
            let room = width.saturating_sub(line.width()).max(1);
            let cut = word
                .char_indices()
                .map(|(i, c)| i + c.len_utf8())
                .take_while(|end| word[..*end].width() <= room)
                .last();
            let (head, tail) = word.split_at(cut.unwrap_or(word.len()));
            out.push_str(&line);
            out.push_str(head);
            out.push('\n');
            line = indent.clone();
            word = tail;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = word.is_empty();
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_table_drops_columns_before_it_cuts_figures() {
        let row = |cells: [&str; 4]| cells.map(String::from).to_vec();
        let grid = Grid {
            head: row(["stage", "rate", "p99", "errors"]),
            rows: vec![row(["a rather long stage name", "1,234/s", "12.3 ms", "0"])],
            optional: vec![2],
        };
        assert_eq!(
            grid.render(80, Border::None),
            "stage                        rate      p99  errors\na rather long stage name  1,234/s  12.3 ms       0\n"
        );
        assert_eq!(
            grid.render(32, Border::None),
            "stage               rate  errors\na rather long    1,234/s       0\nstage name\n"
        );
        assert!(grid.render(50, Border::Box).lines().all(|l| l.width() <= 50));
        assert!(!grid.render(80, Border::None).contains('\u{1b}'));
    }

    #[test]
    fn control_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc\u{202e}"), "a[31mb c");
    }

    proptest! {
        #[test]
        fn wrapped_lines_fit(text in "[a-zé漢 ]{0,200}", width in 30usize..100) {
            for line in wrap("* ", &text, width).lines() {
                prop_assert!(line.width() <= width, "{line:?}");
            }
        }
    }
}
