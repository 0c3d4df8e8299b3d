//! What the command says about itself.

mod support;

use support::Bench;

/// Commands as `throng --help` lists them.
fn commands(bench: &Bench) -> Vec<String> {
    let help = bench.ok(&["--help"]).out;
    let list = help.split_once("Commands:\n").expect("a list of commands").1;
    let lines = list.lines().take_while(|line| !line.is_empty());
    // A description that is wrapped goes on further to the right.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_command_explains_itself_within_the_width_of_a_page() {
    let bench = Bench::anywhere();
    let commands = commands(&bench);
    for expected in ["run", "up", "down", "ps", "scale", "logs", "exec", "load", "build", "completions"] {
        assert!(commands.iter().any(|name| name == expected), "{expected} is missing from {commands:?}");
    }
    assert!(!commands.iter().any(|name| name == "supervise" || name == "build-step"), "{commands:?}");
    let pages = commands.iter().map(|name| vec![name.as_str(), "--help"]).chain([vec!["--help"]]);
    for page in pages.filter(|page| page[0] != "help") {
        let done = bench.ok(&page);
        done.prints("Usage: throng");
        let longest = done.out.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(longest <= 100, "{page:?} is {longest} columns wide");
        let brief: Vec<&str> = page.iter().map(|word| if *word == "--help" { "-h" } else { word }).collect();
        assert_eq!(bench.ok(&brief).out, done.out, "{page:?} has one layout");
        if let Some((_, global)) = done.out.split_once("\nGlobal options:\n") {
            assert!(!global.contains(":\n  "), "{page:?} goes on with other options:\n{global}");
        }
    }
    bench.fails(2, &[]).says("Usage: throng");
    bench.ok(&["--version"]).prints(env!("CARGO_PKG_VERSION"));
    assert!(!bench.home.exists(), "asking for help makes no folders");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let bench = Bench::anywhere();
    let commands = commands(&bench);
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.ok(&["completions", shell]).out;
        for name in &commands {
            assert!(script.contains(name.as_str()), "{shell} does not complete {name}");
        }
        assert!(!script.contains("build-step"), "{shell} completes what only throng itself starts");
    }
    bench.fails(2, &["completions", "tcsh"]).says("tcsh");
    bench.ok(&["man", "pages"]);
    let page = |name: &str| std::fs::read_to_string(bench.folder.join("pages").join(name));
    assert!(page("throng.1").expect("a page").contains(".TH"));
    for name in commands.iter().filter(|name| *name != "help") {
        assert!(
            page(&format!("throng-{name}.1")).is_ok_and(|text| text.contains(".SH")),
            "{name} has no page"
        );
    }
}

#[test]
fn bash_takes_the_completion_script() {
    let bench = Bench::anywhere();
    let script = bench.ok(&["completions", "bash"]).out;
    bench.write("throng.bash", &script);
    let status =
        std::process::Command::new("bash").args(["-n", "throng.bash"]).current_dir(&bench.folder).status();
    match status {
        Ok(status) => assert!(status.success()),
        Err(error) => support::skip("bash_takes_the_completion_script", &format!("no bash: {error}")),
    }
}

#[test]
fn exit_codes_are_listed() {
    let bench = Bench::anywhere();
    let done = bench.ok(&["exit-codes"]);
    let codes: Vec<u8> =
        done.out.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 130]);
}

#[test]
fn config_shows_the_app_as_it_is_understood() {
    let bench = Bench::anywhere();
    bench.compose("services:\n  web: {image: x, ports: ['80:80'], command: echo hi}\n  db: {image: y}\n");
    assert_eq!(bench.ok(&["config", "--services"]).out, "db\nweb\n");
    assert_eq!(bench.ok(&["config", "-q"]).out, "");
    let json: serde_json::Value =
        serde_json::from_str(&bench.ok(&["config", "--format", "json"]).out).expect("JSON");
    assert_eq!(json["name"], bench.project);
    assert_eq!(json["services"]["web"]["command"], serde_json::json!(["echo", "hi"]));
    let yaml = bench.ok(&["config"]).out;
    bench.write("canonical.yaml", &yaml);
    assert_eq!(
        bench.ok(&["-f", "canonical.yaml", "config"]).out,
        yaml,
        "what is printed reads as the same app"
    );
    bench.compose("services:\n  web: {image: x, nonsense: 1}\n");
    bench.ok(&["config", "-q"]).says("warning").says("nonsense").says("compose.yaml:3");
    // Profiles and the environment have their say.
    bench.compose("services:\n  web: {image: 'x:${TAG:-one}'}\n  extra: {image: y, profiles: [more]}\n");
    assert_eq!(bench.ok(&["config", "--services"]).out, "web\n");
    assert_eq!(bench.ok(&["--profile", "more", "config", "--services"]).out, "extra\nweb\n");
    let mut command = bench.command(&["config"]);
    command.env("TAG", "two");
    bench.spawn_with(command).wait().prints("x:two");
}
