//! What people see: colours, tables, progress. On a terminal bars move; elsewhere plain lines appear.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use unicode_width::UnicodeWidthStr;

/// Colour on or off, decided once for each output.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub color: bool,
}

impl Style {
    pub fn for_stdout() -> Style {
        Style::for_output(std::io::stdout().is_terminal())
    }

    pub fn for_stderr() -> Style {
        Style::for_output(std::io::stderr().is_terminal())
    }

    /// Colour on terminals unless `NO_COLOR` is set (no-color.org).
    fn for_output(terminal: bool) -> Style {
        Style { color: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }

    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// One of six colours for the `n`th thing of a kind, as log prefixes have.
    pub fn nth(self, n: usize, text: &str) -> String {
        const COLORS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];
        self.paint(COLORS[n % COLORS.len()], text)
    }
}

/// The width to print to: that of the terminal, else 80.
pub fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|w| *w > 0)
        .unwrap_or(80)
}

/// Columns aligned by spaces, headings in capitals, as docker prints them. The last column is cut to the width
/// of a terminal; elsewhere nothing is cut.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let most = std::io::stdout().is_terminal().then(width);
    let line = |cells: &[&str]| {
        let mut line = String::new();
        for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let last = index + 1 == cells.len();
            line.push_str(cell);
            if !last {
                line.push_str(&" ".repeat(width.saturating_sub(cell.width()) + 3));
            }
        }
        let mut line = line.trim_end().to_owned();
        if let Some(most) = most.filter(|most| line.width() > *most) {
            line = shorten(&line, most);
        }
        line + "\n"
    };
    let mut text = line(headings);
    for row in rows {
        text += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

/// The text cut to `most` columns, with an ellipsis if anything was cut.
pub fn shorten(text: &str, most: usize) -> String {
    if text.width() <= most {
        return text.to_owned();
    }
    let mut short = String::new();
    for character in text.chars() {
        if short.width() + 2 > most {
            break;
        }
        short.push(character);
    }
    short + "…"
}

/// The text in lines of at most `most` columns, broken between words.
pub fn wrap(text: &str, most: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.width() + 1 + word.width() <= most) {
            Some(line) => *line = format!("{line} {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// A thing that takes longer than a second and shows how far it is.
pub struct Progress {
    label: String,
    bar: Option<ProgressBar>,
    begin: Instant,
    last: Instant,
    said: String,
}

/// Pause between two plain lines about the same thing where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

impl Progress {
    pub fn new(label: &str) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let now = Instant::now();
        Progress { label: label.into(), bar, begin: now, last: now, said: String::new() }
    }

    /// Where nothing moves, says that it has begun: it may be long before there is more to say.
    pub fn announce(&self) {
        if self.bar.is_none() {
            eprintln!("  {} …", self.label);
        }
    }

    /// A part of a known whole: shown as a bar.
    pub fn part(&mut self, done: u64, total: u64, message: &str) {
        match &self.bar {
            Some(bar) => {
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    let template = "{spinner} {prefix} [{bar:16}] {percent:>3} %  {wide_msg}";
                    if let Ok(style) = ProgressStyle::with_template(template) {
                        bar.set_style(style.progress_chars("█▌░"));
                    }
                }
                bar.set_position(done);
                bar.set_message(message.to_owned());
            }
            None => self.plain(&format!("{done}/{total}  {message}")),
        }
    }

    pub fn say(&mut self, message: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None => self.plain(message),
        }
    }

    /// Something between the label and the bar, as the number of a repetition.
    pub fn prefix(&mut self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("{} {text}", self.label));
        }
    }

    /// Writes to standard error without the bar getting in the way.
    pub fn above(&mut self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn plain(&mut self, message: &str) {
        if self.last.elapsed() >= PLAIN_EVERY && self.said != message {
            eprintln!("  {} {message}", self.label);
            self.last = Instant::now();
            self.said = message.to_owned();
        }
    }

    /// Takes the bar away and leaves one line.
    pub fn done(self, message: &str) {
        let style = Style::for_stderr();
        self.end(&style.green("✔"), message);
    }

    /// It has come to its end, but not to what was hoped for.
    pub fn warned(self, message: &str) {
        let style = Style::for_stderr();
        self.end(&style.yellow("!"), message);
    }

    pub fn failed(self, message: &str) {
        let style = Style::for_stderr();
        self.end(&style.red("✘"), message);
    }

    fn end(self, mark: &str, message: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.begin.elapsed().as_secs_f64();
        let style = Style::for_stderr();
        eprintln!("{mark} {} {message} {}", self.label, style.dim(&format!("{seconds:.1} s")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_do_not_trail_spaces() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["longer".into(), "2".into()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME     N\na        1\nlonger   2\n");
    }

    #[test]
    fn wrapping_breaks_between_words_only() {
        assert_eq!(wrap("a bb  ccc dddddd e", 5), "a bb\nccc\ndddddd\ne");
        assert_eq!(wrap("", 5), "");
    }

    #[test]
    fn shortening_keeps_to_the_width() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdef", 4), "abc…");
    }
}
