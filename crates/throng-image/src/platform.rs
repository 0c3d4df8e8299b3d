//! Whether an image's programs can run on this machine.

use crate::error::{ImageError, Result};
use crate::store::Image;
use crate::view::LayerView;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Where programs are looked for when the image sets no PATH (as Docker does).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// This machine in the words of images: `amd64`, `arm64`.
pub fn machine_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The kernel's and people's name for an image's architecture.
fn common_name(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

/// Refuses an image that says it is made for another kind of machine or another system.
///
/// # Errors
/// [`ImageError::WrongArchitecture`] naming both.
pub fn check_architecture(image: &Image) -> Result<()> {
    let machine = machine_architecture();
    // 32-bit x86 programs run on 64-bit kernels.
    let runs = image.architecture.is_empty()
        || image.architecture == machine
        || (image.architecture == "386" && machine == "amd64");
    let linux = image.os.is_empty() || image.os == "linux";
    if runs && linux {
        return Ok(());
    }
    let mut built_for = common_name(&image.architecture).to_string();
    if !linux {
        built_for = format!("{} on {built_for}", image.os);
    }
    Err(ImageError::WrongArchitecture {
        image: image.reference.clone(),
        built_for,
        machine: common_name(machine).into(),
    })
}

/// The architecture that the header of `program`'s file names, or `None` if it cannot be told: no such program, no
/// ELF file (a script), or an architecture without a name here. `layers` are unpacked, bottom first; a program
/// without slash is looked for in `path` (colons between folders).
///
/// # Errors
/// Only if a layer cannot be read.
pub fn program_architecture(layers: &[PathBuf], program: &str, path: &str) -> Result<Option<&'static str>> {
    let view = LayerView::new(layers.to_vec());
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![program.into()]
    } else {
        path.split(':')
            .filter(|folder| !folder.is_empty())
            .map(|folder| Path::new(folder).join(program))
            .collect()
    };
    for candidate in candidates {
        let resolved = view.resolve(&candidate, true).map_err(ImageError::io("read", &candidate))?;
        let Some(node) = resolved.node.filter(|node| node.metadata.is_file()) else { continue };
        let mut header = [0; 20];
        let mut file = File::open(&node.host).map_err(ImageError::io("open", &node.host))?;
        return Ok(file.read_exact(&mut header).ok().and_then(|()| elf_architecture(&header)));
    }
    Ok(None)
}

/// Refuses a program that is built for another kind of machine, which the kernel would only call "exec format
/// error". `name` is the image's, for the message.
pub fn check_program(name: &str, layers: &[PathBuf], program: &str, path: &str) -> Result<()> {
    let machine = machine_architecture();
    match program_architecture(layers, program, path)? {
        Some(built_for) if built_for != machine && !(built_for == "386" && machine == "amd64") => {
            Err(ImageError::WrongArchitecture {
                image: format!("{program} in {name}"),
                built_for: common_name(built_for).into(),
                machine: common_name(machine).into(),
            })
        }
        _ => Ok(()),
    }
}

/// Reads `e_machine` of an ELF header (elf(5)); numbers from the System V ABI's registry.
fn elf_architecture(header: &[u8; 20]) -> Option<&'static str> {
    if !header.starts_with(b"\x7fELF") {
        return None;
    }
    let little = header[5] == 1;
    let bytes = [header[18], header[19]];
    let machine = if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) };
    let wide = header[4] == 2;
    Some(match (machine, wide) {
        (3, _) => "386",
        (8, false) => "mips",
        (8, true) => "mips64",
        (21, _) if little => "ppc64le",
        (21, _) => "ppc64",
        (22, _) => "s390x",
        (40, _) => "arm",
        (62, _) => "amd64",
        (183, _) => "arm64",
        (243, true) => "riscv64",
        (258, _) => "loong64",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn header(class: u8, data: u8, machine: [u8; 2]) -> [u8; 20] {
        let mut header = [0; 20];
        header[..4].copy_from_slice(b"\x7fELF");
        (header[4], header[5], header[18], header[19]) = (class, data, machine[0], machine[1]);
        header
    }

    #[test]
    fn headers_name_their_machine() {
        assert_eq!(elf_architecture(&header(2, 1, [62, 0])), Some("amd64"));
        assert_eq!(elf_architecture(&header(2, 1, [183, 0])), Some("arm64"));
        assert_eq!(elf_architecture(&header(2, 2, [0, 22])), Some("s390x"));
        assert_eq!(elf_architecture(&header(1, 1, [0xff, 0xff])), None);
        assert_eq!(elf_architecture(b"#!/bin/sh\nexec true\n"), None);
    }

    #[test]
    fn a_foreign_program_is_named_before_it_is_started() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = if machine_architecture() == "arm64" { [62, 0] } else { [183, 0] };
        std::fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        std::fs::write(dir.path().join("usr/bin/app"), header(2, 1, foreign)).unwrap();
        symlink("/usr/bin/app", dir.path().join("start")).unwrap();
        let layers = [dir.path().to_path_buf()];
        for program in ["/start", "app", "/usr/bin/app"] {
            let error = check_program("shop/web", &layers, program, DEFAULT_PATH).unwrap_err();
            assert!(matches!(error, ImageError::WrongArchitecture { .. }), "{error}");
            assert!(error.hint().unwrap().contains(common_name(machine_architecture())));
        }
        check_program("shop/web", &layers, "/missing", DEFAULT_PATH).unwrap();
    }
}
