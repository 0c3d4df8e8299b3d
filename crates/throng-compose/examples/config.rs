//! Prints what `throng config` prints: `cargo run -p throng-compose --example config -- FILE…`.

use std::process::ExitCode;
use throng_compose::{LoadOptions, load, render, to_yaml};

fn main() -> ExitCode {
    let options = LoadOptions {
        files: std::env::args_os().skip(1).map(Into::into).collect(),
        directory: ".".into(),
        environment: std::env::vars().collect(),
        ..LoadOptions::default()
    };
    match load(&options) {
        Ok(loaded) => {
            eprint!("{}", render(&loaded.warnings, false));
            print!("{}", to_yaml(&loaded.app));
            ExitCode::SUCCESS
        }
        Err(findings) => {
            eprint!("{}", render(&findings, false));
            ExitCode::FAILURE
        }
    }
}
