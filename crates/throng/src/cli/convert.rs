//! Arguments of `throng convert`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;
use throng_model::units::parse_bytes;

#[derive(Debug, Args)]
pub struct ConvertArguments {
    /// Compose file; several are merged in order [default: compose.yaml here or further up]
    #[arg(short, long = "file", value_name = "FILE", id = "convert_file")]
    pub file: Vec<PathBuf>,
    /// Folder to write to, one file for each service; - is standard output
    #[arg(short, long, value_name = "FOLDER", default_value = "k8s")]
    pub output: PathBuf,
    /// How manifests are written
    #[arg(long, value_enum, default_value_t)]
    pub format: ConvertFormat,
    /// Namespace that all objects name [default: that of whoever applies them]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Size of a volume that no label kompose.volume.size gives one
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = volume_size)]
    pub volume_size: u64,
    /// Write a base for Kustomize, and an overlay of this name beside it; may be given several times
    #[arg(long, value_name = "NAME", value_parser = overlay_name)]
    pub overlay: Vec<String>,
    /// Write over files that were not made by this command
    #[arg(long)]
    pub force: bool,
}

/// The name of an overlay is that of its folder.
fn overlay_name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match !text.is_empty() && text.chars().all(good) {
        true => Ok(text.to_owned()),
        false => Err("write a name of letters, digits, - and _".to_owned()),
    }
}

/// A disk of no size at all is none.
fn volume_size(text: &str) -> Result<u64, String> {
    match parse_bytes(text).map_err(|error| error.to_string())? {
        0 => Err("a volume holds something".to_owned()),
        bytes => Ok(bytes),
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ConvertFormat {
    #[default]
    Yaml,
    Json,
}
