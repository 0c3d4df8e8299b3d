//! The image of the cases: one static program that does what its first argument says, and files that cannot be run.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program's source; a program of its own, not a part of this crate.
const PROBE: &str = include_str!("../../throng-engine/tests/common/probe.rs");

/// Makes the folder `layer` in `folder`, with `/probe` and some files that no kernel here runs: `/foreign` (for another
/// machine), `/text` (no program), `/plain` (may not be executed), `/script` (its interpreter is missing).
pub fn layer(folder: &Path) -> PathBuf {
    let layer = folder.join("layer");
    std::fs::create_dir_all(&layer).expect("a folder for the image");
    let source = folder.join("probe.rs");
    std::fs::write(&source, PROBE).expect("the probe's source");
    let status = Command::new("rustc")
        .args(["--edition=2024", "-O", "-C", "target-feature=+crt-static", "-C", "panic=abort", "-o"])
        .arg(layer.join("probe"))
        .arg(&source)
        .status()
        .expect("rustc runs");
    assert!(status.success(), "the probe does not compile");
    let mut foreign = vec![0u8; 64];
    // ELF, 64 bits, little-endian, for RISC-V (elf(5)).
    foreign[..6].copy_from_slice(b"\x7fELF\x02\x01");
    foreign[18] = 243;
    for (name, content, mode) in [
        ("foreign", foreign.as_slice(), 0o755),
        ("text", b"hello", 0o755),
        ("plain", b"#!/probe\n", 0o644),
        ("script", b"#!/nowhere\n", 0o755),
    ] {
        let path = layer.join(name);
        std::fs::write(&path, content).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    }
    layer
}
