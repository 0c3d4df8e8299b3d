//! What the terminal shows, to the letter.

mod sample;

use sample::{CLASSIC, Shape, classic, crowd};
use unicode_width::UnicodeWidthStr;

#[test]
fn the_summary_of_the_classic_course() {
    let mut run = classic(CLASSIC);
    run.summary = vec![
        "What was learnt is said here in the experiment's own words, which are wrapped where the line ends."
            .into(),
    ];
    let expected = "\
stage                clients  replicas  req/s      p50      p95      p99  errors
One client                 1         1     84  11.2 ms  14.9 ms    18 ms       0
Ten clients               10         1     84   116 ms   146 ms   191 ms       0
Ten clients, three        10         3    253  38.7 ms  46.2 ms  54.8 ms       0
replicas

ok    One client: p95<60ms, measured 14.9 ms
ok    One client: errors<1%, measured 0 %
FAIL  Ten clients: p95<60ms, measured 146.3 ms
ok    Ten clients: errors<1%, measured 0 %
ok    Ten clients, three replicas: p95<60ms, measured 46.2 ms
ok    Ten clients, three replicas: errors<1%, measured 0 %

* What was learnt is said here in the experiment's own words, which are wrapped
  where the line ends.

failed after 20.2 s, run 20261122-141507-pdfmagic
";
    assert_eq!(throng_report::summary_text(&run, 80), expected);
}

#[test]
fn tables_keep_to_the_width_of_the_terminal() {
    let run = classic(Shape { repetitions: 3, failing: 50, ..CLASSIC });
    let runs = [run.clone(), classic(CLASSIC), crowd(20, 10)];
    for width in [40, 60, 80, 120] {
        for text in [
            throng_report::summary_text(&run, width),
            throng_report::summary_text_boxed(&run, width),
            throng_report::compare_text(&runs, width.max(56)),
        ] {
            let widest = text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0);
            assert!(widest <= width.max(56), "{widest} of {width}:\n{text}");
        }
    }
    assert!(throng_report::summary_text_boxed(&run, 80).contains('┌'));
    assert!(!throng_report::summary_text(&run, 80).contains('│'));
}

#[test]
fn a_comparison_gives_ratios_to_the_first_run() {
    let faster = classic(Shape { service: 5_750.0, seed: 8, ..CLASSIC });
    let text = throng_report::compare_text(&[classic(CLASSIC), faster], 80);
    let median = text.lines().find(|line| line.starts_with("median")).expect("a line of medians");
    assert!(median.contains("× 0.5") || median.contains("× 0.49"), "{median}");
    assert_eq!(throng_report::compare_text(&[], 80), "no runs to compare\n");
}
