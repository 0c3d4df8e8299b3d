//! What comes out of the command line's one definition: completions, manual pages, the table of exit codes.

use crate::cli;
use crate::failure::{EXIT_CODES, Result, io};
use std::path::Path;

pub fn completions(shell: clap_complete::Shell) {
    let full = cli::command();
    // The generators offer hidden commands too, and nobody is to type those that throng starts by itself.
    let shown = full.get_subcommands().filter(|command| !command.is_hide_set());
    let mut command = clap::Command::new("throng")
        .disable_help_flag(true)
        .args(full.get_arguments())
        .subcommands(shown.cloned().collect::<Vec<_>>());
    clap_complete::generate(shell, &mut command, "throng", &mut std::io::stdout());
}

pub fn pages(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| io(format!("make {}", folder.display()), &error))?;
    clap_mangen::generate_to(cli::command(), folder)
        .map_err(|error| io(format!("write into {}", folder.display()), &error))
}

pub fn exit_codes() {
    for (code, meaning) in EXIT_CODES {
        outln!("{code:>3}  {meaning}");
    }
}
