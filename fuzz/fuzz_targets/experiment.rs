#![no_main]
//! Any text as an experiment over an app with one service.

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::path::Path;
use throng_model::app::{App, Service};

fuzz_target!(|text: &str| {
    let service = Service { name: "web".into(), replicas: 1, ..Service::default() };
    let app = App { name: "app".into(), services: BTreeMap::from([("web".into(), service)]), ..App::default() };
    let _ = throng_experiment::file::parse(Path::new("experiment.yaml"), text, &app, &BTreeMap::new());
});
