//! Settings are changed, remembered and put back.

mod support;

use support::Paper;
use throng_walls::Change;
use throng_walls::fix::{FixError, Fixer, RECORD, Undone};

fn change(setting: &str, from: u64, to: u64) -> Change {
    Change { setting: setting.into(), from, to }
}

fn bench() -> (Paper, Fixer) {
    let paper = Paper::host();
    paper.set("kernel.random.boot_id", "first");
    let fixer = Fixer::new(paper.root(), paper.root());
    (paper, fixer)
}

#[test]
fn what_was_changed_goes_back_to_what_it_was_before_the_first_change() {
    let (paper, fixer) = bench();
    fixer.apply(&[change("kernel.pid_max", 32_768, 65_536)]).expect("changed");
    fixer
        .apply(&[change("kernel.pid_max", 65_536, 131_072), change("fs.mount-max", 100_000, 131_072)])
        .expect("changed");
    assert_eq!(paper.setting("kernel.pid_max"), "131072");
    let undone = fixer.undo().expect("undone");
    assert_eq!(
        undone,
        [
            (change("fs.mount-max", 100_000, 131_072), Undone::PutBack),
            (change("kernel.pid_max", 32_768, 131_072), Undone::PutBack)
        ]
    );
    assert_eq!(paper.setting("kernel.pid_max"), "32768");
    assert_eq!(paper.setting("fs.mount-max"), "100000");
    assert!(!fixer.record_path().exists());
    assert_eq!(fixer.undo().expect("nothing to undo"), []);
}

#[test]
fn what_somebody_has_changed_since_is_theirs() {
    let (paper, fixer) = bench();
    fixer.apply(&[change("kernel.pid_max", 32_768, 65_536)]).expect("changed");
    paper.set("kernel.pid_max", "4194304");
    assert_eq!(fixer.undo().expect("undone")[0].1, Undone::ChangedSince(4_194_304));
    assert_eq!(paper.setting("kernel.pid_max"), "4194304");
}

#[test]
fn a_restart_of_the_host_has_undone_everything() {
    let (paper, fixer) = bench();
    fixer.apply(&[change("kernel.pid_max", 32_768, 65_536)]).expect("changed");
    paper.set("kernel.random.boot_id", "second");
    assert_eq!(fixer.undo().expect("nothing"), []);
    assert_eq!(paper.setting("kernel.pid_max"), "65536", "it may have been made permanent");
}

#[test]
fn a_setting_that_is_not_there_is_not_made_and_the_rest_can_be_undone() {
    let (paper, fixer) = bench();
    let gone = change("net.netfilter.nf_conntrack_max", 1, 2);
    let error = fixer.apply(&[change("kernel.pid_max", 32_768, 65_536), gone.clone()]).expect_err("refused");
    assert!(error.to_string().starts_with("cannot write net.netfilter.nf_conntrack_max: "), "{error}");
    assert!(error.hint().contains("root"));
    assert!(!paper.root().join("proc/sys/net/netfilter").exists());
    let undone = fixer.undo().expect("undone");
    assert_eq!(undone[0], (gone, Undone::Gone));
    assert_eq!(paper.setting("kernel.pid_max"), "32768");
}

#[test]
fn a_damaged_record_changes_nothing() {
    for text in [
        "{\"version\": 1, \"boot\": \"first\", \"cha",
        "{\"version\": 9, \"boot\": \"first\", \"changes\": []}",
        "{\"version\": 1, \"boot\": \"first\", \"changes\": [{\"setting\": \"../../etc/passwd\", \"from\": 1, \"to\": 2}]}",
    ] {
        let (paper, fixer) = bench();
        paper.write(RECORD, text);
        for error in [
            fixer.undo().expect_err("damaged"),
            fixer.apply(&[change("kernel.pid_max", 32_768, 65_536)]).expect_err("damaged"),
        ] {
            assert!(matches!(error, FixError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("doctor.json is damaged"));
        }
        assert_eq!(paper.setting("kernel.pid_max"), "32768");
        assert_eq!(std::fs::read_to_string(fixer.record_path()).expect("kept"), text);
    }
}

#[test]
fn nothing_changes_where_it_cannot_be_remembered() {
    let (paper, _) = bench();
    let fixer = Fixer::new(paper.root(), paper.root().join("nowhere"));
    let error = fixer.apply(&[change("kernel.pid_max", 32_768, 65_536)]).expect_err("refused");
    assert!(matches!(error, FixError::Record { .. }), "{error}");
    assert_eq!(paper.setting("kernel.pid_max"), "32768");
}
