//! Commands inside running containers.

use crate::docker::Core;
use crate::errors::{daemon, host, is};
use crate::exit;
use crate::replica::Replica;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::time::Duration;
use throng_model::replica::Exit;
use throng_runtime::{ErrorKind, ExecIo, ExecSpec, Result, RuntimeError};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Pieces of output or input on their way, and the size of those of the input.
const PIECES: usize = 16;
const PIECE: usize = 32 << 10;
/// How long the daemon may take to name the process of a command that it has begun.
const BEGUN_WITHIN: Duration = Duration::from_secs(10);
/// How long a killed command may take to end.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long one that was killed may take before it is looked whether it is frozen.
const FROZEN_LOOK: Duration = Duration::from_millis(500);
/// What the daemon writes to the output of a command that could not begin.
const REFUSAL: &[u8] = b"OCI runtime exec failed";
const KILLED: i64 = 137;

type Output = Pin<Box<dyn Stream<Item = std::result::Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

impl Core {
    pub async fn exec(&self, replica: &Replica, spec: &ExecSpec, io: ExecIo) -> Result<Exit> {
        let deadline = spec.timeout.map(|timeout| Instant::now() + timeout);
        if replica.running().is_none() {
            return Err(not_running(replica));
        }
        let (command, output, input) = self.begin(replica, spec).await?;
        // Dropped with this future too: a command that nobody waits for any more ends.
        let killer = Killer(command.process().await?);
        let (input_end, gone) = std::io::pipe().map_err(|error| host(&command.what, error))?;
        let pieces = stdin_pieces(io.stdin, input_end);
        let work = async {
            let said = copy(output, io.stdout, io.stderr).await;
            let said = said.map_err(|error| daemon(&command.what, error))?;
            let (exit, begun) = command.end().await?;
            if begun { Ok(exit) } else { Err(command.refused(spec, &said)) }
        };
        let exit = tokio::select! {
            exit = work => exit,
            never = feed(input, pieces) => match never {},
            () = until(deadline) => {
                killer.kill(replica)?;
                command.killed(replica).await
            }
        };
        // The reader of its input waits for this.
        drop(gone);
        exit
    }

    async fn begin(&self, replica: &Replica, spec: &ExecSpec) -> Result<(Command<'_>, Output, Input)> {
        let what = format!("cannot run a command in {}", replica.id);
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(spec.env.clone()),
            cmd: Some(spec.args.clone()),
            user: spec.user.clone(),
            working_dir: spec.cwd.clone(),
            ..Default::default()
        };
        // The semaphore is never closed.
        let _permit = self.orders.acquire().await;
        let id = match self.api.create_exec(&replica.container()?, options).await {
            Err(error) if is(&error, 409) => return Err(not_now(replica, &error)),
            made => made.map_err(|error| daemon(&what, error))?.id,
        };
        let started = self.api.start_exec(&id, None::<StartExecOptions>).await;
        match started.map_err(|error| daemon(format_args!("{what}: {:?}", spec.args), error))? {
            StartExecResults::Attached { output, input } => {
                Ok((Command { core: self, id, what }, output, input))
            }
            StartExecResults::Detached => Err(host(what, "Docker did not attach to it")),
        }
    }
}

fn not_running(replica: &Replica) -> RuntimeError {
    RuntimeError::new(ErrorKind::Invalid, format!("{} is not running", replica.id))
        .hint("see `throng ps --all` for how it ended")
}

/// The daemon refuses while the container is paused, or after its end.
fn not_now(replica: &Replica, error: &bollard::errors::Error) -> RuntimeError {
    if !replica.inner().paused && !error.to_string().contains("is paused") {
        return not_running(replica);
    }
    RuntimeError::new(ErrorKind::Invalid, format!("{} is paused", replica.id))
        .hint("`throng unpause` lets it go on")
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A command that the daemon has been told to run.
struct Command<'a> {
    core: &'a Core,
    id: String,
    what: String,
}

impl Command<'_> {
    /// Its process, unless it has ended already, or is out of this user's reach.
    async fn process(&self) -> Result<Option<OwnedFd>> {
        let deadline = Instant::now() + BEGUN_WITHIN;
        loop {
            let seen = self.inspect().await?;
            let pid = seen.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
            match (seen.running, pid) {
                (Some(true), Some(pid)) => return Ok(pidfd_open(pid, PidfdFlags::empty()).ok()),
                (Some(true), None) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
                _ => return Ok(None),
            }
        }
    }

    /// Waits for its end: how it ended, and whether it had begun at all.
    async fn end(&self) -> Result<(Exit, bool)> {
        loop {
            let seen = self.inspect().await?;
            if seen.running != Some(true) {
                let begun = seen.pid.is_some_and(|pid| pid > 0) || !matches!(seen.exit_code, Some(126 | 127));
                return Ok((exit::exit(seen.exit_code.unwrap_or(KILLED), false), begun));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for its end after it has been killed. What is frozen with its replica does not even die, and is not waited for.
    async fn killed(&self, replica: &Replica) -> Result<Exit> {
        let ended = tokio::time::timeout(KILLED_WITHIN, self.end());
        tokio::pin!(ended);
        loop {
            tokio::select! {
                ended = &mut ended => {
                    let ended = ended.map_err(|_| host(&self.what, "it has not ended though it was killed"))?;
                    return ended.map(|(exit, _)| exit);
                }
                () = tokio::time::sleep(FROZEN_LOOK) => {
                    if replica.inner().paused {
                        return Err(host(&self.what, "it has been killed and ends when its replica goes on"));
                    }
                }
            }
        }
    }

    fn refused(&self, spec: &ExecSpec, said: &[u8]) -> RuntimeError {
        let program = spec.args.first().map_or("", String::as_str);
        let message = format!("{}: {program:?}: {}", self.what, String::from_utf8_lossy(said).trim());
        RuntimeError::new(ErrorKind::Invalid, message)
            .hint("name a program that the replica has, by its path")
    }

    async fn inspect(&self) -> Result<bollard::models::ExecInspectResponse> {
        self.core.api.inspect_exec(&self.id).await.map_err(|error| daemon(&self.what, error))
    }
}

/// Docker's API cannot end a command; its process can be, by whoever may signal it.
struct Killer(Option<OwnedFd>);

impl Killer {
    fn kill(&self, replica: &Replica) -> Result<()> {
        let Some(process) = &self.0 else { return Ok(()) };
        match pidfd_send_signal(process, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(host(format_args!("cannot end a command in {}", replica.id), error)
                .hint("only root may end what runs in containers; run throng as root")),
        }
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            // It has ended as a rule.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

/// Writes what comes to the command's outputs, until its end. What the daemon itself says instead is returned.
async fn copy(
    mut output: Output,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> std::result::Result<Vec<u8>, bollard::errors::Error> {
    let (sender, mut pieces) = mpsc::channel::<(bool, Bytes)>(PIECES);
    // A thread, because who reads the other end may be slow for as long as it likes.
    let writing = tokio::task::spawn_blocking(move || {
        let (mut stdout, mut stderr) = (std::fs::File::from(stdout), std::fs::File::from(stderr));
        while let Some((to_stderr, piece)) = pieces.blocking_recv() {
            let file = if to_stderr { &mut stderr } else { &mut stdout };
            // A reader that has gone away gets nothing more; the command goes on and learns it as by any pipe.
            if file.write_all(&piece).is_err() {
                break;
            }
        }
    });
    let mut refused = Vec::new();
    while let Some(piece) = output.next().await {
        let piece = piece?;
        let to_stderr = matches!(piece, LogOutput::StdErr { .. });
        let bytes = piece.into_bytes();
        if !refused.is_empty() || bytes.starts_with(REFUSAL) {
            refused.extend_from_slice(&bytes);
        } else if sender.send((to_stderr, bytes)).await.is_err() {
            break;
        }
    }
    drop(sender);
    let _ = writing.await;
    Ok(refused)
}

/// What comes from the standard input, until its end or until the other end of `gone` is closed.
fn stdin_pieces(stdin: OwnedFd, gone: PipeReader) -> mpsc::Receiver<Bytes> {
    let (sender, pieces) = mpsc::channel(PIECES);
    // A thread that waits for both: a read alone could never be called off.
    std::thread::spawn(move || {
        let mut stdin = std::fs::File::from(stdin);
        let mut buffer = vec![0u8; PIECE];
        loop {
            let mut both = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&gone, PollFlags::IN)];
            let waited = poll(&mut both, None);
            let ended = !both[1].revents().is_empty();
            match waited {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) if ended => return,
                Ok(_) => {}
            }
            match stdin.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() {
                        return;
                    }
                }
            }
        }
    });
    pieces
}

/// Hands the command its input. Never ends by itself: the connection is held until the command has ended, because the
/// daemon takes a closed one for the end of both directions.
async fn feed(mut input: Input, mut pieces: mpsc::Receiver<Bytes>) -> std::convert::Infallible {
    while let Some(piece) = pieces.recv().await {
        // A command that has ended, or closed its input, takes no more.
        if input.write_all(&piece).await.is_err() {
            break;
        }
    }
    let _ = input.shutdown().await;
    std::future::pending().await
}
