//! The program itself: what it says and how it ends.

use std::process::Command;

fn ends(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pdfmagic")).args(arguments).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_cannot_be_converted_is_said_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (image, pdf) = (path("cut.jpg"), path("out.pdf"));
    std::fs::write(&image, [0xff, 0xd8, 0xff, 0xe0]).expect("written");
    let missing = path("missing.jpg");
    for (arguments, code, said) in [
        (vec!["convert", &image, &pdf], 1, image.as_str()),
        (vec!["convert", &missing, &pdf], 1, "hint: name a JPEG or PNG file"),
        (vec!["convert", &image], 2, "Usage"),
        (vec!["serve", "--threads", "0"], 2, "--threads"),
    ] {
        let (ended, text) = ends(&arguments);
        assert_eq!(ended, Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
        assert!(!std::path::Path::new(&pdf).exists());
    }
}
