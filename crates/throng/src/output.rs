//! Standard output as `print!` would write it, but `throng ps | head -1` is no failure: a reader that has seen enough
//! ends the command in silence.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Writes to standard output. Ends the process when nobody reads it any more.
pub fn write(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("error: cannot write to standard output: {error}");
        }
        std::process::exit(if error.kind() == ErrorKind::BrokenPipe { 0 } else { 4 });
    }
}

/// `print!` by way of [`write()`].
macro_rules! out {
    ($($argument:tt)*) => { crate::output::write(format_args!($($argument)*)) };
}

/// `println!` by way of [`write()`].
macro_rules! outln {
    ($($argument:tt)*) => { crate::output::write(format_args!("{}\n", format_args!($($argument)*))) };
}
