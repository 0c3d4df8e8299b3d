//! Images: made, moved, removed.

use super::Format;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct BuildArguments {
    /// With -t: the build context; otherwise services to build [default: all]
    pub targets: Vec<String>,
    /// Name of the image; may be given several times
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Vec<String>,
    /// Dockerfile [default: Dockerfile in the context]
    #[arg(short = 'f', long, visible_alias = "file", value_name = "FILE", requires = "tag")]
    pub dockerfile: Option<PathBuf>,
    /// Stage to build
    #[arg(long, value_name = "STAGE", requires = "tag")]
    pub target: Option<String>,
    /// Value of an ARG
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_arg: Vec<String>,
    /// Carry out every instruction again
    #[arg(long)]
    pub no_cache: bool,
    /// Fetch the images that the build begins with anew, even if they are here
    #[arg(long)]
    pub pull: bool,
    /// What RUN --mount=type=secret finds: id=NAME,src=FILE or id=NAME,env=VARIABLE
    #[arg(long, value_name = "SECRET", requires = "tag")]
    pub secret: Vec<String>,
    /// What FROM, COPY --from and RUN --mount find by name: NAME=FOLDER or NAME=docker-image://IMAGE
    #[arg(long, value_name = "NAME=SOURCE", requires = "tag")]
    pub build_context: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE", requires = "tag")]
    pub label: Vec<String>,
    /// Further line of /etc/hosts in RUN
    #[arg(long, value_name = "NAME=ADDRESS", requires = "tag")]
    pub add_host: Vec<String>,
    /// Network of RUN
    #[arg(long, value_name = "NETWORK", value_enum, default_value_t, requires = "tag")]
    pub network: NetworkArgument,
    /// How the build is shown: in one moving line, or each step on lines of its own
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub progress: ProgressArgument,
    /// Show nothing but the image's id
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressArgument {
    #[default]
    Auto,
    Tty,
    Plain,
    Quiet,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum NetworkArgument {
    /// The host's
    #[default]
    Default,
    /// The host's
    Host,
    None,
}

/// When images are asked for at their registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullArgument {
    Always,
    Missing,
    Never,
}

#[derive(Debug, Args)]
pub struct PullArguments {
    /// Images [default: those of the app's services]
    pub images: Vec<String>,
    /// Speak plain HTTP or accept any certificate
    #[arg(long)]
    pub insecure: bool,
}

#[derive(Debug, Args)]
pub struct PushArguments {
    /// Names, each with its registry
    #[arg(required = true)]
    pub images: Vec<String>,
    /// Speak plain HTTP or accept any certificate
    #[arg(long)]
    pub insecure: bool,
}

#[derive(Debug, Args)]
pub struct ImagesArguments {
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct RmiArguments {
    /// Names or ids
    #[arg(required = true)]
    pub images: Vec<String>,
}

const PRUNE_MORE: &str = "\
    Images are unused if no app that is up names them and no replica was made from them. An app is up \
    from `throng up` to `throng down`, whether or not its supervisor lives.\n\nWhile an app is up, its \
    supervisor looks at the disk every five minutes, as kubelet does. From 85 % on it removes unused \
    images, the one used longest ago first, until at most 80 % are used, and where that does not help, \
    what replicas that have ended for good had written. THRONG_DISK_HIGH_PERCENT and \
    THRONG_DISK_LOW_PERCENT move the marks; a high mark of 100 turns this off. `throng events` says what \
    went.";

#[derive(Debug, Args)]
#[command(after_help = PRUNE_MORE)]
pub struct PruneArguments {
    /// All unused images, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Named volumes that no app has, too, with all data in them
    #[arg(long)]
    pub volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only say what would be removed
    #[arg(long, conflicts_with = "force")]
    pub dry_run: bool,
    /// How --dry-run prints it
    #[arg(long, value_enum, default_value_t, requires = "dry_run")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct TagArguments {
    /// Name or id that it has
    pub source: String,
    /// Name that it is to have as well
    pub target: String,
}

#[derive(Debug, Args)]
pub struct SaveArguments {
    /// Names or ids
    #[arg(required = true)]
    pub images: Vec<String>,
    /// Archive to write [default: standard output, unless it is a terminal]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Kind of archive: what `docker load` reads, or an OCI image layout
    #[arg(long, value_enum, default_value_t)]
    pub archive: ArchiveArgument,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ArchiveArgument {
    #[default]
    Docker,
    Oci,
}
