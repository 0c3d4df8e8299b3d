//! Where everything lives on this host.

use crate::backend::On;
use std::path::{Path, PathBuf};

/// Folders of one user. `THRONG_HOME` moves all of them under one folder.
#[derive(Debug, Clone)]
pub struct Paths {
    /// What outlives a reboot: images, volumes, replicas' files, runs.
    pub data: PathBuf,
    /// Sockets and locks.
    pub run: PathBuf,
}

impl Paths {
    /// Root: `/var/lib/throng` and `/run/throng`. Others: the XDG base directories.
    pub fn discover() -> Paths {
        let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(home) = var("THRONG_HOME") {
            let home = std::path::absolute(&home).unwrap_or(home);
            return Paths { run: home.join("run"), data: home };
        }
        let uid = rustix::process::getuid();
        if uid.is_root() {
            return Paths { data: "/var/lib/throng".into(), run: "/run/throng".into() };
        }
        let home = var("HOME").unwrap_or_else(|| "/".into());
        let data = var("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("throng");
        let run = match var("XDG_RUNTIME_DIR") {
            Some(folder) => folder.join("throng"),
            None => std::env::temp_dir().join(format!("throng-{}", uid.as_raw())),
        };
        Paths { data, run }
    }

    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    pub fn engine(&self) -> PathBuf {
        self.data.join("engine")
    }

    /// Logs of replicas on Docker, and which daemon each project runs on.
    pub fn docker(&self) -> PathBuf {
        self.data.join("docker")
    }

    /// Records which daemon a project runs on beside its state, so that its replicas can be taken down even if that
    /// is lost. The engine's own folders say the same of its replicas.
    pub fn mark(&self, project: &str, on: &On) -> std::io::Result<()> {
        let Some(text) = on.record() else { return Ok(()) };
        std::fs::create_dir_all(self.docker().join(project))?;
        std::fs::write(self.mark_of(project), text)
    }

    pub fn unmark(&self, project: &str) {
        // Neither is there for a project that runs on the engine.
        let _ = std::fs::remove_file(self.mark_of(project));
        let _ = std::fs::remove_dir(self.docker().join(project));
    }

    fn mark_of(&self, project: &str) -> PathBuf {
        self.docker().join(project).join(".host")
    }

    /// What a project has been recorded to run on, if anything is left of it; its state goes first.
    pub fn runs_on(&self, project: &str) -> Option<On> {
        if let Ok(Some(durable)) = crate::state::load(&self.state_file(project)) {
            return Some(durable.on);
        }
        let mark = std::fs::read_to_string(self.mark_of(project)).ok();
        let local = || self.engine().join(project).exists().then_some(On::Local);
        mark.map(|text| On::of_record(&text)).or_else(local)
    }

    /// Networks that the engine has made for a project and that may be on no record but its own: whoever had them made may
    /// have been killed before that was written. A name that begins with another project's belongs to that one.
    pub fn made_for(&self, project: &str) -> Vec<String> {
        let of = |name: &str, project: &str| {
            name.strip_prefix(project).is_some_and(|rest| rest.starts_with('_')).then_some(project.len())
        };
        let folders = std::fs::read_dir(self.projects()).into_iter().flatten().flatten();
        let others: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let ours = |name: &String| {
            let longest = others.iter().filter_map(|other| of(name, other)).max();
            of(name, project).is_some_and(|length| longest.is_none_or(|longest| longest <= length))
        };
        throng_engine::recorded_networks(&self.engine()).into_iter().filter(ours).collect()
    }

    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    pub fn runs(&self) -> PathBuf {
        self.data.join("runs")
    }

    pub fn projects(&self) -> PathBuf {
        self.data.join("projects")
    }

    pub fn project(&self, project: &str) -> PathBuf {
        self.projects().join(project)
    }

    pub fn state_file(&self, project: &str) -> PathBuf {
        self.project(project).join("state.json")
    }

    pub fn lives_file(&self, project: &str) -> PathBuf {
        self.project(project).join("replicas.json")
    }

    pub fn supervisor_log(&self, project: &str) -> PathBuf {
        self.project(project).join("supervisor.log")
    }

    pub fn socket(&self, project: &str) -> PathBuf {
        self.run.join(format!("{project}.sock"))
    }

    pub fn lock(&self, name: &str) -> PathBuf {
        self.run.join(format!("{name}.lock"))
    }

    /// Whether a text can be a project's name: it becomes part of file names, so nothing else may be looked up.
    /// The rule is Compose's.
    pub fn is_project_name(name: &str) -> bool {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        name.starts_with(letter) && name.chars().all(|c| letter(c) || c == '-' || c == '_')
    }

    /// Makes the folders, closed to other users.
    pub fn prepare(&self) -> std::io::Result<()> {
        for folder in [&self.data, &self.run] {
            make_private(folder)?;
        }
        Ok(())
    }
}

/// A folder that only its owner can enter. One that exists and belongs to somebody else is refused: a socket in
/// it could be another user's.
fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    if !folder.exists() {
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let metadata = std::fs::metadata(folder)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        let message = format!("{} belongs to another user", folder.display());
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, message));
    }
    // A folder that others may write to would let them plant a socket or a state file.
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode & !0o022))?;
    }
    Ok(())
}
