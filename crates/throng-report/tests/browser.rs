//! The pages in Chromium (Debian: `chromium`): nothing is refused or thrown, every chart has a size, both themes show.

mod sample;

use sample::{CLASSIC, Shape, classic, crowd};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use throng_report::{Happening, PlotUnit, Thing, TimePage, TimePlot, TimeSeries};

const LONGEST: Duration = Duration::from_secs(90);

/// `None`, with a line that says so, where there is no Chromium.
fn chromium() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    });
    if found.is_none() {
        assert!(
            std::env::var("THRONG_REQUIRE_ALL").as_deref() != Ok("1"),
            "chromium is missing: apt-get install chromium"
        );
        eprintln!("SKIPPED browser: chromium is missing (apt-get install chromium)");
    }
    found
}

/// Runs Chromium with a profile of its own and kills it if it hangs.
fn browse(program: &str, page: &Path, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let file = |path: &Path| std::fs::File::create(path).expect("a file for output");
    let mut child = Command::new(program)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--hide-scrollbars",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ])
        .args(["--enable-logging=stderr", "--log-level=0"])
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .expect("chromium starts");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if begun.elapsed() > LONGEST {
            child.kill().expect("a running child");
            child.wait().expect("a killed child");
            panic!("chromium did not end within {LONGEST:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let read = |path: &Path| std::fs::read(path).expect("output");
    Output { status, stdout: read(&out), stderr: read(&err) }
}

/// What the page's console said.
fn console(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().filter(|line| line.contains("CONSOLE")).map(String::from).collect()
}

fn pages() -> Vec<(&'static str, String)> {
    let repeated = classic(Shape { seed: 21, repetitions: 2, failing: 90, ..CLASSIC });
    let mut hostile = classic(CLASSIC);
    let text = "</script><script>document.title='broken'</script><img src=x onerror=\"throw 1\">";
    hostile.title = text.into();
    hostile.stages.iter_mut().for_each(|stage| stage.name.push_str(text));
    hostile.replicas[0].name = text.into();
    vec![
        ("classic", throng_report::html(&classic(CLASSIC))),
        ("hostile", throng_report::html(&hostile)),
        ("compare", throng_report::compare_html(&[classic(CLASSIC), repeated])),
        ("crowd", throng_report::html(&crowd(40, 50))),
        ("time", throng_report::time_html(&over_time(text))),
        ("empty", throng_report::html(&throng_model::run::Run::default())),
    ]
}

/// A page of what is no run, with the same text everywhere.
fn over_time(text: &str) -> TimePage {
    let series =
        TimeSeries { thing: Some(0), name: text.into(), steps: true, points: vec![(0.0, 1.0), (90.0, 3.0)] };
    TimePage {
        title: text.into(),
        lead: vec![text.into()],
        lessons: vec![text.into()],
        things: vec![Thing { name: text.into(), about: text.into() }],
        figures: vec![(text.into(), vec![text.into()])],
        plots: vec![TimePlot {
            id: "x",
            title: text.into(),
            label: text.into(),
            unit: PlotUnit::Count,
            height: 100.0,
            series: vec![series],
            levels: vec![(2.0, text.into())],
        }],
        horizon: 100.0,
        happenings: vec![Happening { at: 5.0, thing: 0, title: text.into(), text: text.into() }],
        facts: vec![(text.into(), text.into())],
        ..TimePage::default()
    }
}

#[test]
fn pages_open_without_a_word_on_the_console() {
    let Some(program) = chromium() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, html) in pages() {
        let page = folder.path().join(format!("{name}.html"));
        std::fs::write(&page, html).expect("a page");
        let output = browse(program, &page, &["--dump-dom"]);
        let dom = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(dom.contains("data-ready=\"yes\""), "{name}: the script did not reach its end");
        assert!(!dom.contains("<title>broken"), "{name}: a text of the run was executed");
        assert_eq!(console(&output), Vec::<String>::new(), "{name}");
    }
}

/// Measures every drawing and reads one out by keyboard, then leaves the results in the document.
const PROBE: &str = r#"<script>
const shown = [...document.querySelectorAll("svg.chart")].map((s) => [s, s.getBoundingClientRect()]).filter(([, b]) => b.width);
const result = {
  charts: shown.map(([s, b]) => [s.dataset.chart, Math.round(b.width), Math.round(b.height)]),
  marks: shown.map(([s]) => [...s.querySelectorAll("path.line, .bars rect")].reduce((n, m) => n + (m.getBoundingClientRect().width > 0), 0)),
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
};
shown[0][0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
result.tip = document.querySelector(".tip")?.textContent ?? "";
document.title = "PROBE" + JSON.stringify(result) + "PROBE";
</script></body>"#;

#[test]
fn every_chart_has_a_size_on_wide_and_narrow_screens() {
    let Some(program) = chromium() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let html = throng_report::html(&classic(CLASSIC));
    // The page's policy refuses any script but its own; the probe needs it lifted.
    let policy = html.find("<meta http-equiv=").expect("a policy");
    let end = html[policy..].find('>').expect("its end") + policy + 1;
    let open = format!("{}{}", &html[..policy], &html[end..]).replace("</body>", PROBE);
    for (name, size, narrow) in
        [("wide", "--window-size=1200,900", false), ("narrow", "--window-size=500,900", true)]
    {
        let page = folder.path().join(format!("{name}.html"));
        std::fs::write(&page, &open).expect("a page");
        let output = browse(program, &page, &[size, "--dump-dom"]);
        let dom = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = dom.split("PROBE").nth(1).expect("the probe's result").replace("&quot;", "\"");
        let result: serde_json::Value = serde_json::from_str(&found).expect("JSON");
        let charts = result["charts"].as_array().expect("charts");
        // Three histograms, the curves, three over time, one of balance, CPU and memory of three replicas.
        assert_eq!(charts.len(), 14, "{name}: {result}");
        for chart in charts {
            let (width, height) = (chart[1].as_u64().unwrap_or(0), chart[2].as_u64().unwrap_or(0));
            assert!(width >= 200 && height >= 80, "{name}: {chart}");
            assert!(!narrow || width <= 480, "{name}: {chart}");
        }
        for marks in result["marks"].as_array().expect("marks") {
            assert!(marks.as_u64().unwrap_or(0) > 0, "{name}: a chart draws nothing: {result}");
        }
        assert_eq!(result["overflow"], 0, "{name}: the page is wider than the screen");
        assert!(
            result["tip"].as_str().is_some_and(|tip| tip.contains("ms") && tip.contains('%')),
            "{name}: {result}"
        );
    }
}

#[test]
fn light_and_dark_pages_are_light_and_dark() {
    let Some(program) = chromium() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let html = throng_report::html(&classic(CLASSIC));
    let mean = |theme: &str| -> f64 {
        let page = folder.path().join(format!("{theme}.html"));
        std::fs::write(
            &page,
            html.replace("<html lang=\"en\">", &format!("<html lang=\"en\" data-theme=\"{theme}\">")),
        )
        .expect("a page");
        let picture = folder.path().join(format!("{theme}.png"));
        browse(program, &page, &["--window-size=900,1500", &format!("--screenshot={}", picture.display())]);
        let file = std::io::BufReader::new(std::fs::File::open(&picture).expect("a screenshot"));
        let mut reader = png::Decoder::new(file).read_info().expect("a picture");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a small picture")];
        let frame = reader.next_frame(&mut pixels).expect("pixels");
        let bytes = &pixels[..frame.buffer_size()];
        bytes.iter().map(|b| f64::from(*b)).sum::<f64>() / bytes.len() as f64
    };
    let (light, dark) = (mean("light"), mean("dark"));
    assert!(light > 215.0, "the light page's mean brightness is {light:.0} of 255");
    // An opaque alpha channel, if there is one, counts as white.
    assert!(dark < 130.0, "the dark page's mean brightness is {dark:.0} of 255");
}
