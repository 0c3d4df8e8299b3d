//! What this host holds: every wall against what is to run, before anything starts.

mod kubernetes;

use crate::cli::{DoctorArguments, Format, Target};
use crate::failure::{Failure, Kind, Result, io};
use crate::project::{Context, parse_scale};
use crate::terminal::{Style, table, wrap};
use serde_json::json;
use std::process::ExitCode;
use throng_model::app::App;
use throng_model::units::{format_bytes, parse_bytes};
use throng_supervisor::Asked;
use throng_walls::cluster::Plan;
use throng_walls::fix::{FixError, Fixer, Undone, safe_changes};
use throng_walls::{Change, Demand, Finding, Host, Links, Remedy, Report, Source, State, Unit, predict};

/// Asked about where nothing says how many.
const DEFAULT_REPLICAS: u64 = 1_000;
/// What is different there.
const ON_DOCKER: &str = "On Docker: a network is a bridge with a port for each replica. What dockerd, containerd and one \
                         shim for each replica take themselves comes on top of what is counted here.";
/// The width that everything but a long command or path keeps to.
const WIDTH: usize = 80;
/// Names of Compose files, as `throng up` looks for them.
const FILE_NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

pub fn run(context: &Context, arguments: &DoctorArguments) -> Result<ExitCode> {
    if arguments.undo {
        return undo(context, arguments.format).map(|()| ExitCode::SUCCESS);
    }
    if arguments.target == Target::Kubernetes {
        return for_cluster(context, arguments);
    }
    if arguments.nodes.is_some() {
        return Err(Failure::new(Kind::Input, "--nodes is about a cluster, and this host is one")
            .hint("say --for kubernetes, or leave it out"));
    }
    let source = Source::live(&context.paths.data);
    let mut host = Host::read(&source);
    let demand = demand(context, arguments, &host)?;
    let mut report = predict(&host, &demand);
    let changes = if arguments.fix { safe_changes(&report) } else { vec![] };
    if arguments.format == Format::Table {
        if matches!(context.on, Some(Asked::Docker { .. })) {
            outln!("{}\n", wrap(ON_DOCKER, WIDTH));
        }
        out!("{}", show(&host, &report));
    }
    let fixed = if changes.is_empty() { Ok(()) } else { fix(context, &host, &changes) };
    if !changes.is_empty() {
        host = Host::read(&source);
        report = predict(&host, &demand);
    }
    fixed?;
    match arguments.format {
        Format::Json => outln!("{}", json!({"host": host, "report": report, "changed": changes})),
        Format::Table if arguments.fix => out!("{}", show_fix(&report, &changes)),
        Format::Table => {}
    }
    Ok(if report.fits { ExitCode::SUCCESS } else { ExitCode::from(Kind::NotHeld.code()) })
}

/// Nothing of this host matters for that.
fn for_cluster(context: &Context, arguments: &DoctorArguments) -> Result<ExitCode> {
    if arguments.fix {
        return Err(Failure::new(Kind::Input, "--fix changes this host and no cluster")
            .hint("put the files where it says, on each node"));
    }
    let pods = match (arguments.replicas, app(context, arguments)?) {
        (Some(replicas), _) => replicas,
        (None, Some(app)) => of_app(&app).replicas.max(1),
        (None, None) => DEFAULT_REPLICAS,
    };
    let plan = Plan { pods, nodes: arguments.nodes.unwrap_or(1), processes: arguments.processes_per_replica };
    let holds = kubernetes::run(plan, arguments.format);
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(Kind::NotHeld.code()) })
}

impl From<FixError> for Failure {
    fn from(error: FixError) -> Failure {
        Failure::new(Kind::Host, error.to_string()).hint(error.hint())
    }
}

fn fixer(context: &Context) -> Result<Fixer> {
    context.paths.prepare().map_err(|error| io("make the state folder", &error))?;
    Ok(Fixer::new("/", &context.paths.data))
}

fn fix(context: &Context, host: &Host, changes: &[Change]) -> Result<()> {
    if host.is_root() != Some(true) {
        let names: Vec<_> = changes.iter().map(|change| change.setting.as_str()).collect();
        return Err(Failure::new(Kind::Host, format!("only root may change {}", names.join(", ")))
            .hint("nothing was changed; run the same as root, or have somebody run the commands above"));
    }
    Ok(fixer(context)?.apply(changes)?)
}

/// What is to run: the Compose file's services if there is one, with what the command line says instead.
fn demand(context: &Context, arguments: &DoctorArguments, host: &Host) -> Result<Demand> {
    let size = |text: &Option<String>| {
        let parse = |text: &String| parse_bytes(text).map_err(|e| Failure::new(Kind::Input, e.to_string()));
        text.as_ref().map(parse).transpose()
    };
    let mut demand = match app(context, arguments)? {
        Some(app) => of_app(&app),
        None => Demand::of(arguments.replicas.unwrap_or(DEFAULT_REPLICAS)),
    };
    if let Some(replicas) = arguments.replicas {
        demand = demand.at(replicas);
    }
    demand.links = match (context.isolation, host.macvlan) {
        // Docker gives each container a pair of interfaces, one of them a port of the network's bridge.
        _ if matches!(context.on, Some(Asked::Docker { .. })) => Links::Pairs,
        (Some("process"), _) => Links::Host,
        (_, Some(false)) => Links::Pairs,
        _ => Links::Shared,
    };
    demand.rootless = host.is_root() == Some(false);
    demand.memory = size(&arguments.memory_per_replica)?.unwrap_or(demand.memory);
    demand.disk = size(&arguments.disk_per_replica)?.unwrap_or(0);
    demand.processes = arguments.processes_per_replica;
    demand.published = arguments.published.unwrap_or(demand.published);
    demand.watchers = arguments.watchers;
    demand.connections = arguments.connections;
    demand.clients = arguments.clients;
    demand.mesh = arguments.mesh;
    Ok(demand)
}

/// The app of a Compose file that is named, or lies in the current folder.
fn app(context: &Context, arguments: &DoctorArguments) -> Result<Option<App>> {
    let project = &context.project;
    let folder = project.project_directory.clone().unwrap_or_default();
    let here = FILE_NAMES.iter().any(|name| folder.join(name).exists());
    if project.file.is_empty() && !here {
        return match arguments.scale.first() {
            None => Ok(None),
            Some(scale) => Err(Failure::new(Kind::Input, format!("--scale {scale} without a Compose file"))
                .hint("name one with -f, or use --replicas N")),
        };
    }
    let mut app = context.load(None)?.app;
    for (service, count) in parse_scale(&arguments.scale, Some(&app))? {
        if let Some(service) = app.services.get_mut(&service) {
            service.replicas = count;
        }
    }
    Ok(Some(app))
}

fn of_app(app: &App) -> Demand {
    let total = |of: &dyn Fn(&throng_model::app::Service) -> u64| -> u64 {
        app.services.values().map(|service| u64::from(service.replicas).saturating_mul(of(service))).sum()
    };
    let replicas = total(&|_| 1);
    let each = replicas.max(1);
    let members = |network: &String| total(&|service| u64::from(service.networks.contains_key(network)));
    let used: Vec<u64> = app.networks.keys().map(members).filter(|members| *members > 0).collect();
    Demand {
        networks: used.len() as u64,
        largest_network: used.iter().copied().max().unwrap_or(replicas),
        memory: total(&|service| service.resources.memory.unwrap_or(0)).div_ceil(each),
        limited: total(&|service| u64::from(service.resources.memory.is_some())),
        mounts: app.services.values().map(|service| service.mounts.len() as u64).max().unwrap_or(0),
        published: app.services.values().map(|service| service.ports.len() as u64).sum(),
        ..Demand::of(replicas)
    }
}

fn show(host: &Host, report: &Report) -> String {
    let style = Style::for_stdout();
    let mut text = format!("{}\n\n", wrap(&introduction(host, report), WIDTH));
    let (judged, apart): (Vec<&Finding>, Vec<&Finding>) =
        report.findings.iter().partition(|finding| finding.state != State::DoesNotApply);
    let rows: Vec<Vec<String>> = judged.iter().map(|finding| row(finding)).collect();
    for (number, line) in table(&["WALL", "STATE", "LIVE", "NEEDED", "HOLDS"], &rows).lines().enumerate() {
        match number.checked_sub(1).and_then(|number| judged.get(number)) {
            Some(finding) => text += &paint(style, line, finding.state),
            None => text += &style.bold(line),
        }
        text.push('\n');
    }
    let names: Vec<_> = apart.iter().map(|finding| finding.row.title).collect();
    if !names.is_empty() {
        text +=
            &format!("\n{}\n", style.dim(&wrap(&format!("Do not apply here: {}.", names.join(", ")), WIDTH)));
    }
    let order: Vec<_> = report.in_order().map(|(finding, _)| finding.row.id).take(2).collect();
    let told = |finding: &&&Finding| {
        order.contains(&finding.row.id) || matches!(finding.state, State::InTheWay | State::Tight)
    };
    for finding in judged.iter().filter(told) {
        text += &details(style, host.is_root() == Some(true), finding);
    }
    let unknown = judged.iter().filter(|finding| finding.state == State::Unknown && !finding.note.is_empty());
    for finding in unknown {
        let note = format!("{}: {}", finding.row.title, finding.note);
        text += &format!("\n{}\n", wrap(&note, WIDTH));
    }
    text + &format!("\n{}\n", verdict(style, report))
}

fn introduction(host: &Host, report: &Report) -> String {
    let demand = &report.demand;
    let kernel = host.kernel.as_deref().unwrap_or("of unknown version");
    let cores = host.cores.map_or_else(|| "?".into(), |cores| cores.to_string());
    let memory = host.memory.map_or_else(|| "?".into(), |memory| format_bytes(memory.available));
    let rights = match (host.is_root(), host.raises_limits) {
        (Some(true), Some(false)) => "root without the right to raise hard limits",
        (Some(true), _) => "root",
        (Some(false), _) => "an ordinary user",
        (None, _) => "an unknown user",
    };
    let networks = match demand.networks {
        1 => "one network".to_owned(),
        n => format!("{n} networks, the largest of {}", digits(demand.largest_network)),
    };
    let processes = demand.processes;
    format!(
        "{} replicas of {processes} task{} each in {networks}, on Linux {kernel} with {cores} cores and {memory} of memory \
         available, as {rights}, on top of what runs now:",
        digits(demand.replicas),
        if processes == 1 { "" } else { "s" },
    )
}

fn row(finding: &Finding) -> Vec<String> {
    let value = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| amount(value, finding.unit));
    let holds = finding.holds.map_or_else(|| "-".into(), digits);
    let title = finding.row.title.to_owned();
    vec![title, word(finding.state).into(), value(finding.live), value(finding.needed), holds]
}

fn word(state: State) -> &'static str {
    match state {
        State::InTheWay => "in the way",
        State::Tight => "tight",
        State::Ok => "ok",
        State::Unknown => "unknown",
        State::DoesNotApply => "does not apply",
    }
}

/// Colours the state's word: after the title, in a line that is laid out already.
fn paint(style: Style, line: &str, state: State) -> String {
    let word = word(state);
    let Some(place) = line.rfind(&format!(" {word}")) else { return line.to_owned() };
    let (before, rest) = line.split_at(place + 1);
    let painted = match state {
        State::InTheWay => style.red(word),
        State::Tight => style.yellow(word),
        State::Ok => style.green(word),
        State::Unknown | State::DoesNotApply => style.dim(word),
    };
    format!("{before}{painted}{}", &rest[word.len()..])
}

fn details(style: Style, root: bool, finding: &Finding) -> String {
    let mut text = format!("\n{}", style.bold(finding.row.title));
    if let (Some(setting), Some(live)) = (&finding.setting, finding.live) {
        text += &format!(": {setting} is {}", amount(live, finding.unit));
        if let Some(needed) = finding.needed {
            text += &format!(", needed {}", amount(needed, finding.unit));
        }
    }
    text.push('\n');
    if !finding.note.is_empty() {
        text += &indented("", &finding.note);
    }
    let Some(remedy) = &finding.remedy else {
        return text + &indented("what moves it: ", finding.row.moves);
    };
    text += &steps(style, root, finding.state, remedy);
    if finding.state == State::InTheWay {
        let seen = finding.row.seen.first().map_or(finding.row.silent, |seen| seen);
        text += &indented("otherwise: ", seen);
    }
    text
}

/// What moves a wall, and back. What is to be typed is never broken up: one setting a line.
fn steps(style: Style, root: bool, state: State, remedy: &Remedy) -> String {
    let purpose = match state {
        State::InTheWay | State::Tight => "",
        _ => " (room for twice as many)",
    };
    let typed = |line: &str| format!("  {}{purpose}\n", style.cyan(line));
    let by = match (remedy.safe, root, state) {
        (true, true, State::InTheWay) => "safe at run time, --fix does it: ",
        (true, true, _) => "safe at run time: ",
        (true, false, _) => "safe at run time, but root must do it: ",
        (false, ..) => "by hand: ",
    };
    let why = indented(by, &remedy.why);
    if remedy.changes.is_empty() {
        let more = [("permanent: ", &remedy.permanent), ("undo: ", &remedy.undo)];
        let more = more.into_iter().filter_map(|(label, text)| Some(indented(label, text.as_ref()?)));
        return typed(&remedy.command) + &why + &more.collect::<String>();
    }
    let each = |line: &dyn Fn(&Change) -> String| remedy.changes.iter().map(line).collect::<String>();
    let command = each(&|change| typed(&format!("sysctl -w {}={}", change.setting, change.to)));
    let lasting = each(&|change| format!("    {} = {}\n", change.setting, change.to));
    let back = each(&|change| format!("    sysctl -w {}={}\n", change.setting, change.from));
    let file = throng_walls::PERMANENT_FILE;
    format!("{command}{why}  permanent: in {file}\n{lasting}  undo:\n{back}")
}

fn indented(label: &str, text: &str) -> String {
    let lines = wrap(&format!("{label}{text}"), WIDTH - 2);
    lines.lines().map(|line| format!("  {line}\n")).collect()
}

fn verdict(style: Style, report: &Report) -> String {
    let mut order = report.in_order();
    let first = order.next().map(|(finding, _)| finding.row.title);
    let holds = match (report.holds, first) {
        (Some(holds), Some(first)) => {
            let next =
                order.next().map(|(next, at)| format!(", the next {} ({})", next.row.title, digits(at)));
            let next = next.unwrap_or_default();
            let replicas = if holds == 1 { "replica" } else { "replicas" };
            format!("This host holds about {} {replicas}; the first wall is {first}{next}.", digits(holds))
        }
        _ => "No wall that is known limits their number here.".into(),
    };
    let blocking = report.findings.iter().filter(|f| f.state == State::InTheWay && f.holds.is_none());
    let also: Vec<_> = blocking.map(|finding| finding.row.title).collect();
    let also =
        if also.is_empty() { String::new() } else { format!(" Whatever their number: {}.", also.join(", ")) };
    let text = wrap(&(holds + &also), WIDTH);
    if report.fits { style.green(&text) } else { style.red(&text) }
}

fn show_fix(report: &Report, changes: &[Change]) -> String {
    let style = Style::for_stdout();
    if changes.is_empty() {
        return wrap(
            "Nothing to change: no wall in the way is moved by a setting that is safe at run time.",
            WIDTH,
        ) + "\n";
    }
    let mut text = format!("\n{}\n", style.bold("Changed"));
    for change in changes {
        text += &format!("  {}: {} -> {}\n", change.setting, change.from, change.to);
    }
    text += &format!("\nTo make it permanent, write this into {}:\n", throng_walls::PERMANENT_FILE);
    for change in changes {
        text += &format!("  {} = {}\n", change.setting, change.to);
    }
    text += "\nTo put everything back: throng doctor --undo\n";
    text + &format!("\n{}\n", verdict(style, report))
}

fn undo(context: &Context, format: Format) -> Result<()> {
    let outcomes = fixer(context)?.undo()?;
    if format == Format::Json {
        let one = |(change, outcome): &(Change, Undone)| json!({"change": change, "outcome": outcome});
        let list: Vec<_> = outcomes.iter().map(one).collect();
        outln!("{}", json!({"undone": list}));
        return Ok(());
    }
    if outcomes.is_empty() {
        outln!("Nothing to undo: no setting has been changed since this host started.");
    }
    for (Change { setting, from, to }, outcome) in outcomes {
        match outcome {
            Undone::PutBack => outln!("{setting}: {to} -> {from}"),
            Undone::ChangedSince(now) => outln!("{setting}: left at {now}; somebody has changed it since"),
            Undone::Gone => outln!("{setting}: is no longer there"),
        }
    }
    Ok(())
}

/// A value that fits a column.
fn amount(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => format_bytes(value),
        Unit::Millicores => format!("{:.1}", value as f64 / 1e3),
        Unit::Count if value >= 10_000_000_000 => format!("{:.0e}", value as f64),
        Unit::Count => digits(value),
    }
}

/// `1,234,567`.
fn digits(value: u64) -> String {
    let plain = value.to_string();
    let mut text = String::new();
    for (number, digit) in plain.chars().enumerate() {
        if number > 0 && (plain.len() - number).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(digits(value), text);
        }
        assert_eq!(amount(u64::MAX >> 1, Unit::Count), "9e18");
        assert_eq!(amount(2_500, Unit::Millicores), "2.5");
    }

    #[test]
    fn the_state_is_coloured_and_nothing_else() {
        let style = Style { color: true };
        assert_eq!(paint(style, "broken ok   ok   1", State::Ok), "broken ok   \x1b[32mok\x1b[0m   1");
        assert_eq!(paint(Style { color: false }, "a   tight   1", State::Tight), "a   tight   1");
    }

    #[test]
    fn no_line_is_wider_than_a_page() {
        let memory = Some(throng_walls::Memory { total: 16 << 30, available: 8 << 30 });
        let mut host = Host { tasks: Some(200), mounts: Some(3_000), memory, ..Host::default() };
        for (name, value) in throng_walls::SETTINGS.iter().zip(100..) {
            host.settings.insert(name, value);
        }
        host.filter.drops_forwarded = Some(true);
        let demand = Demand {
            links: Links::Pairs,
            processes: 3,
            mesh: true,
            memory: 1 << 30,
            watchers: 1,
            connections: 9,
            clients: 30_000,
            published: 30_000,
            ..Demand::of(1_000)
        };
        let report = predict(&host, &demand);
        let text = show(&host, &report) + &show_fix(&report, &safe_changes(&report));
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        for expected in ["  sysctl -w net.ipv4.neigh.default.gc_thresh1=", "Whatever their number: Docker's"]
        {
            assert!(text.contains(expected), "{text}");
        }
    }
}
