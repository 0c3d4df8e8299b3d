//! `throng exec -T`: the command gets pipes where this process has a terminal, and bytes are carried over.

use crate::failure::{Result, io};
use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use throng_model::replica::Exit;
use throng_supervisor::client::Client;
use throng_supervisor::protocol::Exec;
use tokio::sync::oneshot;

const PIECE: usize = 16 << 10;
/// How long what the command wrote last may take to the terminal: something that it has left behind may hold its pipe
/// open for ever.
const LAST_WITHIN: Duration = Duration::from_secs(5);

pub async fn exec(client: &Client, exec: Exec) -> Result<Exit> {
    let made = |error: std::io::Error| io("make a pipe", &error);
    let input = input().map_err(made)?;
    let (output, out_carried) = output(std::io::stdout()).map_err(made)?;
    let (errors, errors_carried) = self::output(std::io::stderr()).map_err(made)?;
    let exit = client.exec_with(exec, [&input, &output, &errors].map(AsFd::as_fd)).await;
    // Only now has the command the last of the pipes' ends.
    drop((output, errors));
    for carried in [out_carried, errors_carried].into_iter().flatten() {
        let _ = tokio::time::timeout(LAST_WITHIN, carried).await;
    }
    Ok(exit?)
}

fn input() -> std::io::Result<OwnedFd> {
    let from = std::io::stdin();
    if !from.is_terminal() {
        return from.as_fd().try_clone_to_owned();
    }
    let (reader, writer) = std::io::pipe()?;
    // Nobody waits for this one: a terminal is read until somebody presses Ctrl-D.
    std::thread::spawn(move || carry(from, writer));
    Ok(reader.into())
}

/// What to hand over, and what ends when everything has been carried.
fn output<W>(to: W) -> std::io::Result<(OwnedFd, Option<oneshot::Receiver<()>>)>
where
    W: Write + AsFd + IsTerminal + Send + 'static,
{
    if !to.is_terminal() {
        return Ok((to.as_fd().try_clone_to_owned()?, None));
    }
    let (reader, writer) = std::io::pipe()?;
    let (carried, ended) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        carry(reader, to);
        drop(carried);
    });
    Ok((writer.into(), Some(ended)))
}

/// Until either end is closed.
fn carry(mut from: impl Read, mut to: impl Write) {
    let mut piece = vec![0; PIECE];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..read]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}
