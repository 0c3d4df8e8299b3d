//! What the live screen shows and how keys change it. Knows nothing of terminals.

use super::host::Host;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;
use throng_model::status::{ReplicaStatus, Status};

/// Letters of a filter at most; no replica's name is longer.
const FILTER_MOST: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Stay,
    Quit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Cpu,
    Memory,
    Network,
    Tasks,
    Name,
}

impl Sort {
    /// In the order in which `s` goes through them.
    const ALL: [Sort; 5] = [Sort::Cpu, Sort::Memory, Sort::Network, Sort::Tasks, Sort::Name];
}

/// What replicas are summed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    Services,
    Nodes,
}

/// One service or node, summed over its replicas.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupRow {
    pub name: String,
    pub ready: u32,
    /// Of a node as many as it has.
    pub wanted: u32,
    pub running: u32,
    pub failed: u32,
    pub restarts: u32,
    pub cpu: f64,
    pub memory: u64,
    pub received: u64,
    pub sent: u64,
    pub tasks: u64,
}

pub struct View {
    /// Only these services, all if empty.
    only: Vec<String>,
    status: Option<Status>,
    host: Option<Host>,
    pub grouping: Grouping,
    pub groups: Vec<GroupRow>,
    /// Places in the status' replicas, in the order in which they are shown.
    order: Vec<usize>,
    pub sort: Sort,
    pub reversed: bool,
    pub filter: String,
    /// Letters go into the filter.
    pub typing: bool,
    /// The first replica shown, and how many there was room for.
    pub first: usize,
    pub room: usize,
}

impl View {
    pub fn new(only: Vec<String>) -> View {
        View {
            only,
            status: None,
            host: None,
            grouping: Grouping::Services,
            groups: Vec::new(),
            order: Vec::new(),
            sort: Sort::Cpu,
            reversed: false,
            filter: String::new(),
            typing: false,
            first: 0,
            room: 1,
        }
    }

    pub fn update(&mut self, mut status: Status, host: Host) {
        let only = &self.only;
        let chosen = |service: &String| only.is_empty() || only.contains(service);
        status.replicas.retain(|replica| chosen(&replica.service));
        status.services.retain(|name, _| chosen(name));
        self.status = Some(status);
        self.host = Some(host);
        if !self.has_nodes() {
            self.grouping = Grouping::Services;
        }
        self.sum();
        self.arrange();
    }

    fn sum(&mut self) {
        let Some(status) = &self.status else { return };
        self.groups = match self.grouping {
            Grouping::Services => service_rows(status),
            Grouping::Nodes => node_rows(status),
        };
    }

    /// Whether replicas are on nodes.
    pub fn has_nodes(&self) -> bool {
        self.status.iter().flat_map(|status| &status.replicas).any(|replica| replica.node.is_some())
    }

    pub fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// How many replicas pass the filter.
    pub fn count(&self) -> usize {
        self.order.len()
    }

    /// Those that are shown with room for so many.
    pub fn shown(&mut self, room: usize) -> Vec<&ReplicaStatus> {
        self.room = room.max(1);
        self.first = self.first.min(self.order.len().saturating_sub(self.room));
        let replicas = self.status.as_ref().map(|status| status.replicas.as_slice()).unwrap_or_default();
        self.order.iter().skip(self.first).take(room).filter_map(|place| replicas.get(*place)).collect()
    }

    /// Age of the oldest figure of any replica, CPU time apart.
    pub fn oldest(&self) -> Duration {
        let replicas = self.status.iter().flat_map(|status| &status.replicas);
        replicas.filter_map(|replica| Some(replica.statistics?.age)).max().unwrap_or_default()
    }

    fn arrange(&mut self) {
        let Some(status) = &self.status else { return };
        let passes = |replica: &ReplicaStatus| {
            self.filter.is_empty()
                || replica.name.contains(&self.filter)
                || replica.node.as_ref().is_some_and(|node| node.contains(&self.filter))
                || replica.state.contains(&self.filter)
        };
        let replicas = &status.replicas;
        self.order = (0..replicas.len()).filter(|place| passes(&replicas[*place])).collect();
        let (sort, reversed) = (self.sort, self.reversed);
        self.order.sort_by(|one, other| {
            let (one, other) = (&replicas[*one], &replicas[*other]);
            let order = compare(sort, one, other);
            if reversed { order.reverse() } else { order }
        });
    }

    pub fn key(&mut self, key: KeyEvent) -> Next {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control {
            return if matches!(key.code, KeyCode::Char('c' | 'd')) { Next::Quit } else { Next::Stay };
        }
        if self.typing {
            self.type_filter(key.code);
            return Next::Stay;
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc if self.filter.is_empty() => return Next::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('s') => self.sort_by(next_sort(self.sort)),
            KeyCode::Char('c') => self.sort_by(Sort::Cpu),
            KeyCode::Char('m') => self.sort_by(Sort::Memory),
            KeyCode::Char('i') => self.sort_by(Sort::Network),
            KeyCode::Char('t') => self.sort_by(Sort::Tasks),
            KeyCode::Char('n') => self.sort_by(Sort::Name),
            KeyCode::Char('v') if self.has_nodes() => self.regroup(),
            code => self.scroll(code),
        }
        self.arrange();
        Next::Stay
    }

    fn regroup(&mut self) {
        self.grouping = match self.grouping {
            Grouping::Services => Grouping::Nodes,
            Grouping::Nodes => Grouping::Services,
        };
        self.sum();
    }

    fn sort_by(&mut self, sort: Sort) {
        (self.sort, self.reversed, self.first) = (sort, false, 0);
    }

    fn scroll(&mut self, code: KeyCode) {
        let last = self.order.len().saturating_sub(self.room);
        self.first = match code {
            KeyCode::Down | KeyCode::Char('j') => self.first.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.first.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.first.saturating_add(self.room),
            KeyCode::PageUp => self.first.saturating_sub(self.room),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => last,
            _ => self.first,
        };
        self.first = self.first.min(last);
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.chars().count() < FILTER_MOST => self.filter.push(letter),
            _ => {}
        }
        self.first = 0;
        self.arrange();
    }
}

fn next_sort(sort: Sort) -> Sort {
    let place = Sort::ALL.iter().position(|one| *one == sort).unwrap_or(0);
    Sort::ALL[(place + 1) % Sort::ALL.len()]
}

/// The most of what is sorted by comes first; among equals, and by name, services and ordinals rise.
fn compare(sort: Sort, one: &ReplicaStatus, other: &ReplicaStatus) -> Ordering {
    let used = |replica: &ReplicaStatus| replica.statistics.unwrap_or_default();
    let traffic = |replica: &ReplicaStatus| {
        let used = used(replica);
        used.network_received.saturating_add(used.network_sent)
    };
    let most = match sort {
        Sort::Cpu => other.cpu.total_cmp(&one.cpu),
        Sort::Memory => used(other).memory.cmp(&used(one).memory),
        Sort::Network => traffic(other).cmp(&traffic(one)),
        Sort::Tasks => used(other).pids.cmp(&used(one).pids),
        Sort::Name => Ordering::Equal,
    };
    most.then_with(|| (&one.service, one.ordinal).cmp(&(&other.service, other.ordinal)))
}

fn service_rows(status: &Status) -> Vec<GroupRow> {
    let mut rows: BTreeMap<&str, GroupRow> = BTreeMap::new();
    for (name, service) in &status.services {
        let readiness = &service.readiness;
        let row = GroupRow {
            name: name.clone(),
            ready: readiness.ready + readiness.completed,
            wanted: readiness.wanted,
            running: readiness.running,
            failed: readiness.failed,
            ..GroupRow::default()
        };
        rows.insert(name, row);
    }
    for replica in &status.replicas {
        let row = rows
            .entry(&replica.service)
            .or_insert_with(|| GroupRow { name: replica.service.clone(), ..GroupRow::default() });
        row.add(replica);
    }
    rows.into_values().collect()
}

/// Nodes that have replicas, and those replicas that are on none yet.
fn node_rows(status: &Status) -> Vec<GroupRow> {
    let mut rows: BTreeMap<Option<&str>, GroupRow> = BTreeMap::new();
    for replica in &status.replicas {
        let node = replica.node.as_deref();
        let name = || node.unwrap_or("-").to_owned();
        let row = rows.entry(node).or_insert_with(|| GroupRow { name: name(), ..GroupRow::default() });
        let runs = replica.state == "running";
        row.wanted += 1;
        row.running += u32::from(runs);
        row.ready += u32::from(runs && matches!(replica.health.as_str(), "" | "healthy"));
        row.failed += u32::from(replica.state == "failed");
        row.add(replica);
    }
    rows.into_values().collect()
}

impl GroupRow {
    fn add(&mut self, replica: &ReplicaStatus) {
        let used = replica.statistics.unwrap_or_default();
        self.restarts = self.restarts.saturating_add(replica.restarts);
        self.cpu += replica.cpu;
        self.memory += used.memory;
        self.received += used.network_received;
        self.sent += used.network_sent;
        self.tasks += used.pids;
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::time::SystemTime;
    use throng_model::replica::Statistics;
    use throng_model::status::{Readiness, ServiceStatus};

    /// `web` with so many replicas, the last the busiest, and a `db` that holds most memory.
    pub fn status(replicas: u32) -> Status {
        let one = |service: &str, ordinal: u32, cpu: f64, memory: u64| ReplicaStatus {
            name: format!("shop-{service}-{ordinal}"),
            service: service.into(),
            ordinal,
            image: "i".into(),
            command: "c".into(),
            state: "running".into(),
            health: "healthy".into(),
            exit: None,
            error: None,
            ended_for: None,
            restarts: 1,
            addresses: vec![[10, 0, 0, 2].into()],
            networks: vec!["shop_default".into()],
            node: None,
            created_at: SystemTime::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
            next_start: None,
            statistics: Some(Statistics {
                memory,
                pids: 2,
                network_received: 1 << 20,
                ..Statistics::default()
            }),
            cpu,
        };
        let service = |count: u32| ServiceStatus {
            image: "i".into(),
            readiness: Readiness {
                wanted: count,
                present: count,
                running: count,
                ready: count,
                ..Readiness::default()
            },
            limits: Default::default(),
            labels: Default::default(),
            published: vec![],
        };
        let webs = (1..=replicas).map(|n| one("web", n, f64::from(n) / f64::from(replicas), 1 << 20));
        Status {
            project: "shop".into(),
            directory: "/shop".into(),
            files: vec![],
            on: "local".into(),
            isolation: "container".into(),
            lost: None,
            unlimited: false,
            services: [("db".to_owned(), service(1)), ("web".to_owned(), service(replicas))].into(),
            replicas: std::iter::once(one("db", 1, 0.25, 64 << 20)).chain(webs).collect(),
        }
    }

    pub fn view(replicas: u32) -> View {
        let mut view = View::new(vec![]);
        view.update(status(replicas), Host::default());
        view
    }

    fn press(view: &mut View, keys: &str) -> Next {
        let mut next = Next::Stay;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                '>' => KeyCode::PageDown,
                letter => KeyCode::Char(letter),
            };
            next = view.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        next
    }

    fn names(view: &mut View, room: usize) -> Vec<String> {
        view.shown(room).iter().map(|replica| format!("{}-{}", replica.service, replica.ordinal)).collect()
    }

    #[test]
    fn services_are_sums_of_their_replicas() {
        let view = view(4);
        assert_eq!(view.groups.len(), 2);
        let web = &view.groups[1];
        assert_eq!((web.name.as_str(), web.ready, web.wanted, web.tasks), ("web", 4, 4, 8));
        assert_eq!((web.memory, web.received, web.restarts), (4 << 20, 4 << 20, 4));
        assert!((web.cpu - 2.5).abs() < 1e-9);
    }

    #[test]
    fn nodes_are_summed_where_there_are_any() {
        let mut view = view(4);
        press(&mut view, "v");
        assert_eq!(view.grouping, Grouping::Services, "there are none");
        let mut spread = status(4);
        for replica in spread.replicas.iter_mut().filter(|replica| replica.service == "web") {
            replica.node = Some(format!("node-{}", replica.ordinal % 2 + 1));
        }
        view.update(spread, Host::default());
        press(&mut view, "v");
        let rows: Vec<_> =
            view.groups.iter().map(|row| (row.name.as_str(), row.ready, row.wanted, row.memory)).collect();
        assert_eq!(rows, [("-", 1, 1, 64 << 20), ("node-1", 2, 2, 2 << 20), ("node-2", 2, 2, 2 << 20)]);
        press(&mut view, "n/node-2\n");
        assert_eq!(names(&mut view, 5), ["web-1", "web-3"]);
        view.update(status(2), Host::default());
        assert_eq!((view.grouping, view.groups.len()), (Grouping::Services, 2), "the nodes have gone");
    }

    #[test]
    fn keys_sort_scroll_and_filter() {
        let mut view = view(4);
        assert_eq!(names(&mut view, 2), ["web-4", "web-3"], "by CPU at first");
        press(&mut view, "r");
        assert_eq!(names(&mut view, 2), ["web-1", "db-1"], "the other way round, equals too");
        press(&mut view, "m");
        assert_eq!(names(&mut view, 2), ["db-1", "web-1"], "equals by name, and no longer reversed");
        press(&mut view, "n");
        assert_eq!(names(&mut view, 3), ["db-1", "web-1", "web-2"]);
        press(&mut view, ">");
        assert_eq!(names(&mut view, 3), ["web-2", "web-3", "web-4"], "no further than the end");
        press(&mut view, "g/web-3x\x08\n");
        assert_eq!(names(&mut view, 3), ["web-3"]);
        assert!(!view.typing);
        assert_eq!(press(&mut view, "\x1b"), Next::Stay, "gives the filter up first");
        assert_eq!((view.count(), press(&mut view, "\x1b")), (5, Next::Quit));
        assert_eq!(press(&mut view, "/q"), Next::Stay, "a letter of the filter");
        assert_eq!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Next::Quit);
        let sorts: Vec<Sort> =
            std::iter::successors(Some(Sort::Cpu), |sort| Some(next_sort(*sort))).take(6).collect();
        assert_eq!(sorts[..5], Sort::ALL);
        assert_eq!(sorts[5], Sort::Cpu);
    }

    #[test]
    fn only_what_was_asked_for_is_shown() {
        let mut view = View::new(vec!["db".into()]);
        view.update(status(3), Host::default());
        assert_eq!((view.groups.len(), view.count()), (1, 1));
        let mut smaller = self::view(9);
        names(&mut smaller, 3);
        press(&mut smaller, "G");
        assert_eq!(smaller.first, 7);
        smaller.update(status(2), Host::default());
        assert_eq!(names(&mut smaller, 3).len(), 3, "scrolled back when replicas have left");
    }
}
