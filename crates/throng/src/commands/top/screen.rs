//! How the live screen is drawn. Made for 80 columns; what is wider gives room to names.

use super::host::Host;
use super::view::{Grouping, Sort, View};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use std::time::Duration;
use throng_model::status::ReplicaStatus;

/// Lines of services or nodes at most, so that replicas have the greater part of the screen.
const GROUPS_MOST: usize = 8;
/// Figures older than this are said to be so.
const OLD: Duration = Duration::from_millis(2_500);
const NODE_WIDTH: Constraint = Constraint::Length(12);
/// Shares of what there is from which a figure stands out.
const WARM: f64 = 0.7;
const HOT: f64 = 0.9;

pub struct Painter {
    /// Otherwise weight alone sets things apart (no-color.org).
    pub color: bool,
}

impl Painter {
    pub fn draw(&self, frame: &mut Frame<'_>, view: &mut View) {
        let groups = view.groups.len().min(GROUPS_MOST) as u16 + 1;
        let [title, host, _, groups, _, replicas, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(groups),
            Constraint::Length(1),
            Constraint::Min(2),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.title(frame, title, view);
        self.host(frame, host, view.host());
        self.groups(frame, groups, view);
        self.replicas(frame, replicas, view);
        self.keys(frame, keys, view);
    }

    fn style(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    fn heading(&self) -> Style {
        self.style(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    fn share(&self, share: f64) -> Style {
        match share {
            share if share >= HOT => self.style(Color::Red).add_modifier(Modifier::BOLD),
            share if share >= WARM => self.style(Color::Yellow),
            _ => Style::new(),
        }
    }

    fn title(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let Some(status) = view.status() else { return };
        let readiness = || status.services.values().map(|service| &service.readiness);
        let ready: u32 = readiness().map(|readiness| readiness.ready + readiness.completed).sum();
        let wanted: u32 = readiness().map(|readiness| readiness.wanted).sum();
        let state = if ready >= wanted { self.style(Color::Green) } else { self.style(Color::Yellow) };
        let mut line = Line::from(vec![
            Span::styled(status.project.clone(), Style::new().add_modifier(Modifier::BOLD)),
            Span::raw("  "),
            Span::styled(format!("{ready} of {wanted} ready"), state),
        ]);
        if !matches!(status.on.as_str(), "" | "local") {
            line.push_span(Span::raw(format!("  on {}", status.on)));
        }
        frame.render_widget(Paragraph::new(line), area);
        let oldest = view.oldest();
        if oldest > OLD {
            let age = format!("all but CPU up to {:.0} s old", oldest.as_secs_f64());
            frame.render_widget(Paragraph::new(age).alignment(Alignment::Right).dim(), area);
        }
    }

    /// The machine that all replicas run on.
    fn host(&self, frame: &mut Frame<'_>, area: Rect, host: Option<&Host>) {
        let Some(host) = host else { return };
        let share = host.memory_used as f64 / host.memory.max(1) as f64;
        let mut spans = vec![Span::styled("host  ", self.heading())];
        match host.busy {
            Some(busy) => spans.push(Span::styled(format!("CPU {:.0} %", 100.0 * busy), self.share(busy))),
            None => spans.push(Span::raw("CPU -")),
        }
        spans.push(Span::raw(format!(" of {} cores  ", host.cores)));
        let memory = format!("mem {} of {}", short(host.memory_used), short(host.memory));
        spans.push(Span::styled(memory, self.share(share)));
        match host.pressure {
            Some([cpu, memory, disk]) => {
                spans.push(Span::raw("  waits: "));
                for (name, share) in [("CPU", cpu), ("mem", memory), ("disk", disk)] {
                    spans.push(Span::styled(format!("{name} {:.0} % ", 100.0 * share), self.share(share)));
                }
            }
            // Never invented: many kernels count it only when booted with psi=1.
            None => spans.push(Span::styled("  pressure: not counted", Style::new().dim())),
        }
        frame.render_widget(Paragraph::new(Line::from(spans)), area);
    }

    fn groups(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let rows = view.groups.iter().take(GROUPS_MOST).map(|row| {
            let ready = format!("{}/{}", row.ready, row.wanted);
            let state = match (row.failed, row.ready >= row.wanted) {
                (0, true) => self.style(Color::Green),
                (0, false) => self.style(Color::Yellow),
                _ => self.style(Color::Red),
            };
            Row::new([
                Cell::from(row.name.clone()),
                right(ready).style(state),
                right(percent(row.cpu)),
                right(short(row.memory)),
                right(both(row.received, row.sent)),
                right(row.tasks.to_string()),
                right(row.restarts.to_string()),
            ])
        });
        let hidden = view.groups.len().saturating_sub(GROUPS_MOST);
        let name = match view.grouping {
            Grouping::Services => "SERVICE",
            Grouping::Nodes => "NODE",
        };
        let name = if hidden > 0 { format!("{name} (+{hidden})") } else { name.into() };
        let headings = Row::new([
            Cell::from(name),
            right("READY"),
            right("CPU %"),
            right("MEMORY"),
            right("NET I/O"),
            right("TASKS"),
            right("RESTARTS"),
        ])
        .style(self.heading());
        let widths = [
            Constraint::Min(12),
            Constraint::Length(11),
            Constraint::Length(7),
            Constraint::Length(6),
            Constraint::Length(13),
            Constraint::Length(6),
            Constraint::Length(8),
        ];
        frame.render_widget(Table::new(rows, widths).header(headings), area);
    }

    fn replicas(&self, frame: &mut Frame<'_>, area: Rect, view: &mut View) {
        let nodes = view.has_nodes();
        let headings = [
            marked("REPLICA", Sort::Name, view, false),
            Cell::from("STATE"),
            marked("CPU %", Sort::Cpu, view, true),
            marked("MEM / LIMIT", Sort::Memory, view, true),
            marked("NET I/O", Sort::Network, view, true),
            right("DISK I/O"),
            marked("TASKS", Sort::Tasks, view, true),
        ];
        let headings = row(headings, nodes.then(|| Cell::from("NODE"))).style(self.heading());
        let shown = view.shown(usize::from(area.height.saturating_sub(1)));
        let rows = shown.into_iter().map(|replica| self.replica(replica, nodes));
        let widths = [12, 9, 7, 13, 13, 13, 7].map(Constraint::Length);
        let mut widths: Vec<Constraint> = widths.into_iter().chain(nodes.then_some(NODE_WIDTH)).collect();
        widths[0] = Constraint::Min(12);
        frame.render_widget(Table::new(rows, widths).header(headings), area);
    }

    /// `nodes`: with the one that it is on.
    fn replica(&self, replica: &ReplicaStatus, nodes: bool) -> Row<'static> {
        let (state, style) = match (replica.state.as_str(), replica.health.as_str()) {
            ("running", "unhealthy") => ("unhealthy", self.style(Color::Red)),
            ("running", "starting") => ("checked", self.style(Color::Yellow)),
            ("running", _) => ("running", self.style(Color::Green)),
            ("failed", _) => ("failed", self.style(Color::Red)),
            (state, _) => (state, self.style(Color::Yellow)),
        };
        // The project is in the title.
        let name = Cell::from(format!("{}-{}", replica.service, replica.ordinal));
        let state = Cell::from(state.to_owned()).style(style);
        let node = nodes.then(|| Cell::from(replica.node.clone().unwrap_or_else(|| "-".into())));
        let Some(used) = replica.statistics else {
            return row([name, state, right("-"), right("-"), right("-"), right("-"), right("-")], node);
        };
        let limit = used.memory_limit.map_or_else(|| "-".into(), short);
        let share = used.memory_limit.map_or(0.0, |limit| used.memory as f64 / limit.max(1) as f64);
        let storage = used.storage_read.zip(used.storage_written);
        let cells = [
            name,
            state,
            right(percent(replica.cpu)),
            right(format!("{} / {limit}", short(used.memory))).style(self.share(share)),
            right(both(used.network_received, used.network_sent)),
            right(storage.map_or_else(|| "-".into(), |(read, written)| both(read, written))),
            right(used.pids.to_string()),
        ];
        row(cells, node)
    }

    fn keys(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let (first, count) = (view.first, view.count());
        let last = (first + view.room).min(count);
        let from = if count == 0 { 0 } else { first + 1 };
        let position = format!("{from}-{last} of {count}");
        let line = match (view.typing, view.filter.as_str()) {
            (true, filter) => format!("filter: {filter}_   Enter keep  Esc give up"),
            (false, "") if view.has_nodes() => {
                "q quit  s sort  v services/nodes  / filter  ↑↓ PgUp PgDn".into()
            }
            (false, "") => "q quit  s sort  r reverse  / filter  ↑↓ PgUp PgDn scroll".into(),
            (false, filter) => format!("filter: {filter}   Esc give up  q quit"),
        };
        frame.render_widget(Paragraph::new(line).style(Style::new().dim()), area);
        frame.render_widget(Paragraph::new(position).alignment(Alignment::Right).dim(), area);
    }
}

/// The node is the last column, where there are nodes.
fn row<const N: usize>(cells: [Cell<'static>; N], node: Option<Cell<'static>>) -> Row<'static> {
    let mut cells = Vec::from(cells);
    cells.extend(node);
    Row::new(cells)
}

/// A column's heading, with an arrow if it is sorted by.
fn marked(heading: &str, sort: Sort, view: &View, to_the_right: bool) -> Cell<'static> {
    let downwards = (sort != Sort::Name) != view.reversed;
    let arrow = if downwards { '▼' } else { '▲' };
    let text = if view.sort == sort { format!("{heading} {arrow}") } else { heading.to_owned() };
    if to_the_right { right(text) } else { Cell::from(text) }
}

fn right(text: impl Into<String>) -> Cell<'static> {
    Cell::from(Line::from(text.into()).alignment(Alignment::Right))
}

fn percent(cpu: f64) -> String {
    format!("{:.1}", 100.0 * cpu)
}

fn both(one: u64, other: u64) -> String {
    format!("{} / {}", short(one), short(other))
}

/// Bytes in at most five columns, so that no figure is ever cut: `9.5M`, `812K`, `1023M`. Units are of 1024.
fn short(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    // What would be rounded up to 1024 belongs to the next unit.
    while value >= 1023.5 {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if value < 9.95 { format!("{value:.1}{}", UNITS[unit]) } else { format!("{value:.0}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(view: &mut View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| Painter { color: true }.draw(frame, view)).expect("drawn");
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content().chunks(usize::from(width));
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn a_screen_of_80_columns_holds_everything() {
        let mut view = view(1_000);
        let lines = drawn(&mut view, 80, 24);
        assert_eq!(lines[0], "shop  1001 of 1001 ready");
        assert!(lines[1].starts_with("host  CPU - of 0 cores"), "{}", lines[1]);
        assert!(lines[1].ends_with("pressure: not counted"), "never invented: {}", lines[1]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(&lines[3]), "SERVICE READY CPU % MEMORY NET I/O TASKS RESTARTS");
        assert_eq!(words(&lines[5]), "web 1000/1000 50050.0 1000M 1000M / 0B 2000 1000");
        assert_eq!(words(&lines[7]), "REPLICA STATE CPU % ▼ MEM / LIMIT NET I/O DISK I/O TASKS");
        assert_eq!(words(&lines[8]), "web-1000 running 100.0 1.0M / - 1.0M / 0B - 2");
        assert!(lines[23].starts_with("q quit") && lines[23].ends_with("1-15 of 1001"), "{}", lines[23]);
    }

    #[test]
    fn nodes_have_a_column_where_there_are_any() {
        let mut status = super::super::view::tests::status(2);
        for replica in &mut status.replicas {
            replica.node = Some(format!("node-{}", replica.ordinal));
        }
        let mut view = View::new(vec![]);
        view.update(status, Host::default());
        let lines = drawn(&mut view, 100, 24);
        assert!(lines[7].ends_with(" NODE"), "{}", lines[7]);
        assert!(lines[8].ends_with(" node-2"), "{}", lines[8]);
        assert!(lines[23].contains("v services/nodes"), "{}", lines[23]);
    }

    #[test]
    fn bytes_fit_their_columns() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (9_999, "9.8K"),
            (10_240, "10K"),
            ((1 << 20) - 1, "1.0M"),
            (1023 << 20, "1023M"),
            (1 << 40, "1.0T"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(short(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn no_size_is_too_small_to_draw_on() {
        for (width, height) in [(1, 1), (10, 3), (20, 5), (40, 10), (300, 100)] {
            drawn(&mut view(3), width, height);
        }
    }

    #[test]
    fn old_figures_are_said_to_be_old() {
        let mut old = super::super::view::tests::status(2);
        for statistics in old.replicas.iter_mut().filter_map(|replica| replica.statistics.as_mut()) {
            statistics.age = Duration::from_secs(7);
        }
        let mut view = View::new(vec![]);
        view.update(old, Host::default());
        let lines = drawn(&mut view, 80, 24);
        assert!(lines[0].ends_with("all but CPU up to 7 s old"), "{}", lines[0]);
    }
}
