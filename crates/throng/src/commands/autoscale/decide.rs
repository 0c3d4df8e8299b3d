//! `throng autoscale decide`: cases from standard input, answers to standard output.

use crate::cli::DecideArguments;
use crate::failure::{Failure, Kind, Result, io};
use std::io::{BufRead, ErrorKind, Read, Write};
use throng_autoscale::{Case, CaseError, decide};

/// Longest case, in bytes: more than 100,000 pods.
const CASE_MOST: u64 = 64 << 20;

pub fn run(arguments: &DecideArguments) -> Result<()> {
    let mut input = std::io::stdin().lock();
    let mut text = Vec::new();
    if !arguments.lines {
        let read = input.take(CASE_MOST + 1).read_to_end(&mut text);
        read.map_err(|error| io("read standard input", &error))?;
        return answer(&text, None, &mut std::io::stdout().lock());
    }
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    for line in 1.. {
        text.clear();
        let read = (&mut input).take(CASE_MOST + 1).read_until(b'\n', &mut text);
        let read = read.map_err(|error| io("read standard input", &error));
        if read.as_ref().is_ok_and(|length| *length == 0) {
            break;
        }
        if text.trim_ascii().is_empty() && read.is_ok() {
            continue;
        }
        // What was decided before a bad line is not lost.
        if let Err(failure) = read.and_then(|_| answer(&text, Some(line), &mut output)) {
            written(output.flush())?;
            return Err(failure);
        }
    }
    written(output.flush())
}

/// Decides one case. `line`: where it stands in the input, if it is one of several.
fn answer(text: &[u8], line: Option<usize>, output: &mut impl Write) -> Result<()> {
    if text.len() as u64 > CASE_MOST {
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let message = format!("{place}the case is longer than {} MiB", CASE_MOST >> 20);
        return Err(Failure::new(Kind::Input, message).hint("leave out pods that do not matter to the case"));
    }
    let case = Case::from_json(text).map_err(|error| refused(&error, line))?;
    let answer = serde_json::to_string(&decide(&case))
        .map_err(|error| Failure::new(Kind::Host, format!("cannot write the answer as JSON: {error}")))?;
    written(writeln!(output, "{answer}"))
}

fn refused(error: &CaseError, line: Option<usize>) -> Failure {
    let message = match (error, line) {
        // A case of several has one line, and which one it is says more than that it is its first.
        (CaseError::Json { column, message, .. }, Some(line)) => {
            format!("line {line}, column {column}: {message}")
        }
        (error, Some(line)) => format!("line {line}: {error}"),
        (error, None) => error.to_string(),
    };
    Failure::new(Kind::Input, format!("the case cannot be read: {message}")).hint(error.hint())
}

/// A reader that has seen enough ends the command in silence, as everywhere else.
fn written(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(|error| io("write to standard output", &error)),
    }
}
