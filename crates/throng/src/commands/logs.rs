//! What replicas have written, one line at a time, each with its replica's name before it.

use crate::cli::LogsArguments;
use crate::failure::{Failure, Kind, Result, io};
use crate::project::Context;
use crate::terminal::Style;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use throng_supervisor::client::Client;
use tokio_util::sync::CancellationToken;

/// How often a followed log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often the set of replicas is asked for anew while following.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The most bytes that are read from one log before the others get their turn.
const READ_AT_ONCE: usize = 256 << 10;
/// A line longer than this is printed in pieces.
const LINE_MOST: usize = 64 << 10;

pub async fn run(context: &Context, arguments: LogsArguments) -> Result<()> {
    if arguments.timestamps || arguments.since.is_some() || arguments.until.is_some() {
        let message = "logs carry no times: replicas write them themselves, and nobody notes when";
        return Err(Failure::new(Kind::Input, message).hint(
            "have the program write them; --tail N shows the end, -f what comes, `throng events` when replicas came and went",
        ));
    }
    let client = context.running().await?;
    let interrupted = super::interrupted()?;
    let mut printer = Printer::new(!arguments.no_log_prefix);
    let logs = client.log_files(&arguments.services).await?;
    printer.width = logs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, files) in logs {
        printer.past(&name, &files, arguments.tail.0)?;
    }
    if arguments.follow {
        following(&client, &arguments.services, interrupted, &mut printer).await?;
    }
    Ok(())
}

/// Follows everything from the beginning until the app is gone or the token is cancelled.
pub async fn follow(client: &Client, services: &[String], end: CancellationToken) -> Result<()> {
    let mut printer = Printer::new(true);
    following(client, services, end, &mut printer).await
}

async fn following(
    client: &Client,
    services: &[String],
    end: CancellationToken,
    printer: &mut Printer,
) -> Result<()> {
    let mut asked: Option<tokio::time::Instant> = None;
    while !end.is_cancelled() {
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            // The supervisor leaves when the app is taken down; its logs have ended then.
            if !open_all(client, services, printer).await? {
                return Ok(());
            }
            asked = Some(tokio::time::Instant::now());
        }
        printer.new_lines()?;
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = end.cancelled() => {}
        }
    }
    // Of those that came and ended since they were asked for last.
    open_all(client, services, printer).await?;
    printer.new_lines()
}

/// Begins to read the logs of replicas that are new. Whether there is anybody to ask.
async fn open_all(client: &Client, services: &[String], printer: &mut Printer) -> Result<bool> {
    let Ok(files) = client.log_files(services).await else { return Ok(false) };
    for (name, files) in files {
        printer.open(&name, &files)?;
    }
    Ok(true)
}

struct Printer {
    prefixed: bool,
    style: Style,
    width: usize,
    open: BTreeMap<String, Open>,
}

/// One log that is being read.
struct Open {
    file: File,
    position: u64,
    /// Device and inode: a replaced replica has a new file under the same name.
    identity: (u64, u64),
    /// The beginning of a line whose end has not been written yet.
    partial: Vec<u8>,
    color: usize,
}

impl Printer {
    fn new(prefixed: bool) -> Printer {
        Printer { prefixed, style: Style::for_stdout(), width: 0, open: BTreeMap::new() }
    }

    /// Prints what is there, only the last `tail` lines if asked so, and remembers where it ended.
    fn past(&mut self, name: &str, files: &[PathBuf], tail: Option<usize>) -> Result<()> {
        let Some((_, older)) = files.split_last() else { return Ok(()) };
        let mut text = Vec::new();
        for path in older {
            text.extend(read_from_data(path)?.0);
        }
        self.open(name, files)?;
        let Some(mut open) = self.open.remove(name) else { return Ok(()) };
        loop {
            let chunk = read_on(&mut open).map_err(|error| io(format!("read the log of {name}"), &error))?;
            if chunk.is_empty() {
                break;
            }
            text.extend(chunk);
        }
        let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        if let Some(tail) = tail {
            lines.drain(..lines.len().saturating_sub(tail));
        }
        self.print(name, open.color, &lines)?;
        self.open.insert(name.to_owned(), open);
        Ok(())
    }

    /// Starts reading a log that is new, or whose file has been replaced.
    fn open(&mut self, name: &str, files: &[PathBuf]) -> Result<()> {
        let Some(path) = files.last() else { return Ok(()) };
        // A replica may leave between being listed and being read.
        let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
        let identity = (metadata.dev(), metadata.ino());
        if self.open.get(name).is_some_and(|open| open.identity == identity) {
            return Ok(());
        }
        let Ok(file) = File::open(path) else { return Ok(()) };
        let position = first_data(&file);
        let color = self.open.get(name).map_or(self.open.len(), |open| open.color);
        self.width = self.width.max(name.len());
        let open = Open { file, position, identity, partial: Vec::new(), color };
        self.open.insert(name.to_owned(), open);
        Ok(())
    }

    fn new_lines(&mut self) -> Result<()> {
        let mut ready = Vec::new();
        for (name, open) in &mut self.open {
            let chunk = read_on(open).map_err(|error| io(format!("read the log of {name}"), &error))?;
            open.partial.extend(chunk);
            let whole = open.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let whole = if whole == 0 && open.partial.len() > LINE_MOST { open.partial.len() } else { whole };
            if whole > 0 {
                ready.push((name.clone(), open.color, open.partial.drain(..whole).collect::<Vec<u8>>()));
            }
        }
        for (name, color, text) in ready {
            let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
            self.print(&name, color, &lines)?;
        }
        Ok(())
    }

    fn print(&self, name: &str, color: usize, lines: &[&[u8]]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let prefix = self.style.nth(color, &format!("{name:<width$} |", width = self.width));
        for line in lines {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let written = (|| {
                if self.prefixed {
                    write!(out, "{prefix} ")?;
                }
                out.write_all(line)?;
                out.write_all(b"\n")
            })();
            match written {
                // `throng logs | head` is no failure.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
                other => other.map_err(|error| io("write to standard output", &error))?,
            }
        }
        out.flush().map_err(|error| io("write to standard output", &error))
    }
}

/// Where a log's bytes begin: rotation leaves a hole before them.
fn first_data(file: &File) -> u64 {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0)).unwrap_or(0)
}

fn read_from_data(path: &Path) -> Result<(Vec<u8>, u64)> {
    let what = || format!("read {}", path.display());
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Rotated away between being listed and being read.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(io(what(), &error)),
    };
    let begin = first_data(&file);
    file.seek(SeekFrom::Start(begin)).map_err(|error| io(what(), &error))?;
    let mut text = Vec::new();
    let read = file.read_to_end(&mut text).map_err(|error| io(what(), &error))?;
    Ok((text, begin + read as u64))
}

/// What has been written since, at most [`READ_AT_ONCE`] bytes.
fn read_on(open: &mut Open) -> std::io::Result<Vec<u8>> {
    // A rotation may have punched a hole over what was about to be read.
    open.position =
        rustix::fs::seek(&open.file, rustix::fs::SeekFrom::Data(open.position)).unwrap_or(open.position);
    open.file.seek(SeekFrom::Start(open.position))?;
    let mut chunk = Vec::new();
    let read = (&mut open.file).take(READ_AT_ONCE as u64).read_to_end(&mut chunk)?;
    open.position += read as u64;
    Ok(chunk)
}
