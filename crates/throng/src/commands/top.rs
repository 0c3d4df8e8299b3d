//! `throng top`: a live screen on a terminal, a table or JSON once elsewhere.

mod host;
mod screen;
mod view;

use super::listings::check_services;
use crate::cli::{Format, TopArguments};
use crate::failure::{Result, io};
use crate::project::Context;
use crate::terminal::{Style, table};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use serde_json::json;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use throng_model::status::{ReplicaStatus, Status};
use throng_model::units::format_bytes;
use throng_supervisor::client::Client;
use tokio::sync::mpsc;
use view::{Next, View};

/// How often the live screen asks for the app's status.
const EVERY: Duration = Duration::from_secs(1);
/// Asking rests for this many times the time that it took: with ten thousand replicas it is no small thing.
const REST: u32 = 9;
/// How long the plain table waits for the first reading of replicas that have just started. One is taken each second.
const FIRST_READING_WITHIN: Duration = Duration::from_secs(3);
const FIRST_READING_EVERY: Duration = Duration::from_millis(50);
/// How long the thread that waits for keys takes to notice that nobody wants any more.
const KEYS_LOOK: Duration = Duration::from_millis(100);
const KEYS_WAITING: usize = 64;

pub async fn run(context: &Context, arguments: TopArguments) -> Result<()> {
    let client = context.running().await?;
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if arguments.no_stream || arguments.format == Format::Json || !terminal {
        return once(&client, &arguments).await;
    }
    let status = client.status().await?;
    check_services(&status, &arguments.services)?;
    let interrupted = super::interrupted()?;
    let mut live = Live::new()?;
    let mut view = View::new(arguments.services);
    view.update(status, host::Host::read(None));
    let painter = screen::Painter { color: Style::for_stdout().color };
    let mut next = tokio::time::Instant::now() + EVERY;
    loop {
        live.terminal
            .draw(|frame| painter.draw(frame, &mut view))
            .map_err(|error| io("draw on the terminal", &error))?;
        tokio::select! {
            () = interrupted.cancelled() => return Ok(()),
            event = live.events.recv() => match event {
                Some(Event::Key(key)) if view.key(key) == Next::Quit => return Ok(()),
                // Another size is drawn for as soon as it is known.
                Some(_) => {}
                None => return Ok(()),
            },
            () = tokio::time::sleep_until(next) => {
                let begin = tokio::time::Instant::now();
                let status = client.status().await?;
                view.update(status, host::Host::read(view.host()));
                next = begin + EVERY.max(begin.elapsed() * REST);
            }
        }
    }
}

/// The terminal while it is ours: raw, on its other screen. It is given back however this ends, a panic included
/// (ratatui's hook).
struct Live {
    terminal: DefaultTerminal,
    events: mpsc::Receiver<Event>,
    stop: Arc<AtomicBool>,
}

impl Live {
    fn new() -> Result<Live> {
        let terminal = ratatui::try_init().map_err(|error| io("take over the terminal", &error))?;
        let (sender, events) = mpsc::channel(KEYS_WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || read_events(&sender, &stopped));
        Ok(Live { terminal, events, stop })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        ratatui::restore();
    }
}

/// Hands keys and changes of size on until nobody wants them or the terminal is gone.
fn read_events(sender: &mpsc::Sender<Event>, stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        let wanted = |event: &Event| match event {
            Event::Key(KeyEvent { kind, .. }) => *kind != KeyEventKind::Release,
            Event::Resize(..) => true,
            _ => false,
        };
        match event::poll(KEYS_LOOK) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(_) => return,
        }
        match event::read() {
            Ok(event) if wanted(&event) => {
                if sender.blocking_send(event).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

async fn once(client: &Client, arguments: &TopArguments) -> Result<()> {
    let mut status = first_readings(client).await?;
    check_services(&status, &arguments.services)?;
    status.replicas.retain(|replica| {
        replica.state == "running"
            && (arguments.services.is_empty() || arguments.services.contains(&replica.service))
    });
    match arguments.format {
        Format::Json => status.replicas.iter().for_each(|replica| outln!("{}", as_json(replica))),
        Format::Table => out!("{}", as_table(&status)),
    }
    Ok(())
}

/// The status once every running replica has been measured, or as it is when that takes too long.
async fn first_readings(client: &Client) -> Result<Status> {
    let begin = tokio::time::Instant::now();
    loop {
        let status = client.status().await?;
        let mut running = status.replicas.iter().filter(|replica| replica.state == "running");
        if running.all(|replica| replica.statistics.is_some()) || begin.elapsed() >= FIRST_READING_WITHIN {
            return Ok(status);
        }
        tokio::time::sleep(FIRST_READING_EVERY).await;
    }
}

fn as_table(status: &Status) -> String {
    let nodes = status.replicas.iter().any(|replica| replica.node.is_some());
    let rows: Vec<Vec<String>> = status
        .replicas
        .iter()
        .map(|replica| {
            let used = replica.statistics.unwrap_or_default();
            let limit = used.memory_limit.map_or_else(|| "-".into(), format_bytes);
            let both = |one: Option<u64>, other: Option<u64>| match (one, other) {
                (Some(one), Some(other)) => format!("{} / {}", format_bytes(one), format_bytes(other)),
                _ => "-".into(),
            };
            let node = nodes.then(|| replica.node.clone().unwrap_or_else(|| "-".into()));
            let cells = [
                replica.name.clone(),
                format!("{:.1}%", replica.cpu * 100.0),
                format!("{} / {limit}", format_bytes(used.memory)),
                both(Some(used.network_received), Some(used.network_sent)),
                both(used.storage_read, used.storage_written),
                used.pids.to_string(),
            ];
            cells.into_iter().chain(node).collect()
        })
        .collect();
    let headings = ["NAME", "CPU %", "MEM USAGE / LIMIT", "NET I/O", "BLOCK I/O", "PIDS", "NODE"];
    table(&headings[..headings.len() - usize::from(!nodes)], &rows)
}

fn as_json(replica: &ReplicaStatus) -> serde_json::Value {
    let used = replica.statistics.unwrap_or_default();
    let pressure = used.pressure.map(|pressure| {
        json!({
            "CPU": pressure.cpu.as_secs_f64(),
            "Memory": pressure.memory.as_secs_f64(),
            "Storage": pressure.storage.as_secs_f64(),
        })
    });
    json!({
        "Name": replica.name,
        "Service": replica.service,
        "Node": replica.node,
        "CPUPerc": format!("{:.2}%", replica.cpu * 100.0),
        "CPU": replica.cpu,
        "Memory": used.memory,
        "MemoryUnreclaimable": used.memory_unreclaimable,
        "MemoryLimit": used.memory_limit,
        "NetworkReceived": used.network_received,
        "NetworkSent": used.network_sent,
        "StorageRead": used.storage_read,
        "StorageWritten": used.storage_written,
        "PressureSeconds": pressure,
        "PIDs": used.pids,
        // Of all but the CPU.
        "AgeSeconds": used.age.as_secs_f64(),
    })
}
