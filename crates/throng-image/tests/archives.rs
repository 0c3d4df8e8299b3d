//! Store to archive and back, also judged by skopeo.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod common;

use common::{Fixture, has_program, skip, tree};
use std::fs;
use std::io::Read as _;
use std::process::Command;
use throng_image::{ArchiveFormat, Image, ImageError, Store};

const FORMATS: [ArchiveFormat; 2] = [ArchiveFormat::Docker, ArchiveFormat::Oci];

fn fixture() -> (Fixture, Image) {
    let fixture = Fixture::new();
    fixture.write("a", "content of a".repeat(1000));
    fixture.write("b", "content of b");
    let (image, _) = fixture.build("FROM scratch\nLABEL x=y\nCOPY a /a\nCOPY b /b\nCMD [\"/a\"]");
    fixture.store.tag("test/app:1", "other:2").unwrap();
    (fixture, image)
}

fn save(store: &Store, references: &[&str], format: ArchiveFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    let references: Vec<String> = references.iter().map(ToString::to_string).collect();
    store.save(&references, format, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_saved_loads_as_the_same_image() {
    let (fixture, image) = fixture();
    for format in FORMATS {
        let bytes = save(&fixture.store, &["test/app:1", "other:2"], format);
        let again = save(&fixture.store, &["other:2", "test/app:1", "other:2"], format);
        assert!(bytes == again, "the order of the names changes the archive");
        let mut packed = flate2::read::GzEncoder::new(bytes.as_slice(), flate2::Compression::fast());
        let mut gzip = Vec::new();
        packed.read_to_end(&mut gzip).unwrap();
        for (kind, bytes) in [("plain", bytes), ("gzip", gzip)] {
            let other = fixture.other_store(&format!("{format:?}{kind}"));
            let loaded = other.load(bytes.as_slice()).unwrap();
            assert_eq!(loaded.len(), 1);
            assert_eq!(loaded[0].id, image.id);
            if format == ArchiveFormat::Oci {
                assert_eq!(loaded[0].manifest_digest, image.manifest_digest);
            }
            for name in ["test/app:1", "other:2"] {
                let found = other.get(name).unwrap();
                assert_eq!(found.config, image.config);
                let layers = other.layers(&found).unwrap();
                assert_eq!(tree(&layers[1])["b"], "content of b");
            }
        }
    }
}

#[test]
fn an_image_saved_by_id_comes_without_name() {
    let (fixture, image) = fixture();
    for format in FORMATS {
        let other = fixture.other_store(&format!("{format:?}"));
        let loaded = other.load(save(&fixture.store, &[&image.id[7..19]], format).as_slice()).unwrap();
        assert_eq!(loaded[0].reference, image.id);
        assert_eq!(other.list().unwrap()[0].repository, "<none>");
        other.tag(&image.id, "named").unwrap();
        assert_eq!(other.list().unwrap().len(), 1);
    }
}

#[test]
fn damaged_archives_are_refused_and_leave_no_name() {
    let (fixture, _) = fixture();
    for format in FORMATS {
        let bytes = save(&fixture.store, &["test/app:1"], format);
        let other = fixture.other_store(&format!("{format:?}"));
        for cut in [bytes.len() / 2, 700, 100] {
            let error = other.load(&bytes[..cut]).unwrap_err();
            assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
        }
        // One byte of a layer's content.
        let mut wrong = bytes.clone();
        let needle: &[u8] =
            if format == ArchiveFormat::Docker { b"content of b" } else { &[0x1f, 0x8b, 8, 0] };
        let at = wrong.windows(needle.len()).rposition(|window| window == needle).unwrap();
        wrong[at + needle.len() + 20] ^= 1;
        let error = other.load(wrong.as_slice()).unwrap_err();
        assert!(matches!(error, ImageError::DigestMismatch { .. } | ImageError::Corrupt { .. }), "{error}");
        assert!(error.hint().is_some());
        assert_eq!(other.list().unwrap(), []);
        assert_eq!(fs::read_dir(other.root().join("tmp")).unwrap().count(), 0);
    }
    let error =
        fixture.store.load(&b"this is no archive at all, but long enough to look at"[..]).unwrap_err();
    assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
}

#[test]
fn an_archive_cannot_reach_out_of_itself() {
    let fixture = Fixture::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.as_old_mut().name[..9].copy_from_slice(b"../escape");
    header.set_cksum();
    tar.append(&header, &b"x"[..]).unwrap();
    let error = fixture.store.load(tar.into_inner().unwrap().as_slice()).unwrap_err();
    assert!(matches!(error, ImageError::UnsafeEntry { .. }), "{error}");
}

#[test]
fn skopeo_reads_what_is_saved_and_writes_what_is_loaded() {
    if !has_program("skopeo") {
        return skip("skopeo_reads_what_is_saved_and_writes_what_is_loaded", "skopeo is not installed");
    }
    let (fixture, image) = fixture();
    for (format, transport) in
        [(ArchiveFormat::Docker, "docker-archive"), (ArchiveFormat::Oci, "oci-archive")]
    {
        let path = fixture.dir.path().join("saved.tar");
        fs::write(&path, save(&fixture.store, &["test/app:1"], format)).unwrap();
        let source = format!("{transport}:{}", path.display());
        let inspected = skopeo(&fixture, &["inspect", "--config", &source]);
        let config: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(config["config"]["Cmd"][0], "/a");
        assert_eq!(config["config"]["Labels"]["x"], "y");

        let copied = fixture.dir.path().join("copied.tar");
        let _ = fs::remove_file(&copied);
        let target = format!("{transport}:{}:copied/name:3", copied.display());
        skopeo(&fixture, &["copy", "--insecure-policy", "-q", &source, &target]);
        let other = fixture.other_store(transport);
        let loaded = other.load_file(&copied).unwrap();
        assert_eq!(loaded[0].id, image.id, "{transport}");
        let found = other.get("copied/name:3").unwrap();
        assert_eq!(tree(&other.layers(&found).unwrap()[1])["b"], "content of b");
    }
}

/// Its own folder for temporary files, /var/tmp, is not open to everybody everywhere.
fn skopeo(fixture: &Fixture, args: &[&str]) -> String {
    let output = Command::new("skopeo").arg("--tmpdir").arg(fixture.dir.path()).args(args).output().unwrap();
    assert!(output.status.success(), "skopeo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
