//! The keys of an experiment file: one table for the reader, the JSON Schema and the documentation.
//!
//! The reader ([`crate::file`]) can take only keys of this table and refuses all others, so the schema that editors
//! use (`docs/experiment.schema.json`) and the tables of `docs/experiment.md` say what the reader does.

use serde_json::{Map, Value, json};

/// A mapping of the file with its keys.
#[derive(Debug)]
pub struct Group {
    /// How messages and the documentation call it: `a stage`.
    pub title: &'static str,
    pub fields: &'static [Field],
}

/// One key.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// What holds when the key is absent; `None` when there is no one value for it.
    pub default: Option<&'static str>,
    pub help: &'static str,
}

/// What the value of a key looks like.
#[derive(Debug)]
pub enum Kind {
    Text,
    /// A whole number in this range.
    Count(u64, u64),
    /// A number above zero.
    Rate,
    /// `1m30s`, `200ms`.
    Duration,
    Flag,
    /// `640x480`, `640x480.png`.
    Picture,
    Choice(&'static [&'static str]),
    Texts,
    TextMap,
    /// The key stands alone, without a value.
    Nothing,
    Group(&'static Group),
    /// A duration, or a mapping.
    DurationOr(&'static Group),
    /// A list of mappings, at most [`MAX_STAGES`].
    Groups(&'static Group),
}

const fn field(name: &'static str, kind: Kind, help: &'static str) -> Field {
    Field { name, kind, default: None, help }
}

const fn with_default(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Field {
    Field { name, kind, default: Some(default), help }
}

/// Most stages of one experiment, and most faults during one load.
pub const MAX_STAGES: usize = 1_000;
/// Most repetitions of one load.
pub const MAX_REPETITIONS: u64 = 1_000;
/// Most replicas that a stage can scale a service to.
pub const MAX_REPLICAS: u64 = 100_000;
/// Most clients or connections of one load.
pub const MAX_CLIENTS: u64 = 100_000;
/// Most requests of one client.
pub const MAX_REQUESTS: u64 = 1_000_000_000_000;

#[rustfmt::skip] // One key a line: these are tables.
pub static EXPERIMENT: Group = Group { title: "the experiment", fields: &[
    field("title", Kind::Text, "The report's heading."),
    field("description", Kind::Text, "What the experiment is to show, in a few sentences."),
    field("variables", Kind::TextMap, "Names and default values; `${name}` stands for the value, and `--set name=value` changes it."),
    with_default("repetitions", Kind::Count(1, MAX_REPETITIONS), "1", "How often each load is carried out unless its stage says otherwise."),
    field("stages", Kind::Groups(&STAGE), "What is done, one after another. Required."),
] };

#[rustfmt::skip] // One key a line: these are tables.
pub static STAGE: Group = Group { title: "a stage", fields: &[
    field("name", Kind::Text, "Name in the report, unique; by default made from the action."),
    field("explain", Kind::Text, "A sentence for the reader, shown when the stage begins and in the report."),
    field("up", Kind::Nothing, "Start the app as the Compose file says and wait until it is ready."),
    field("scale", Kind::Group(&SCALE), "Change the number of a service's replicas and wait until they are ready."),
    field("load", Kind::Group(&LOAD), "Send requests and measure the answers."),
    field("wait", Kind::Group(&WAIT), "Wait until a condition holds."),
    field("pause", Kind::DurationOr(&PAUSE), "With a duration: do nothing for this long, so that a person can read or a system can settle. With a mapping: keep replicas from running."),
    field("cut", Kind::Group(&CUT), "Let no packet pass to or from these nodes; their replicas go on."),
    field("slow", Kind::Group(&SLOW), "Change the links of these nodes; what is not named stays as it is."),
    field("heal", Kind::Group(&HEAL), "Let packets pass again, over links as the Compose file says."),
    field("kill", Kind::Group(&KILL), "Kill replicas, as a crash would."),
    field("stop", Kind::Group(&STOP), "Stop replicas and keep them down."),
    field("start", Kind::Group(&START), "Start stopped replicas again."),
    field("unpause", Kind::Group(&UNPAUSE), "Let paused replicas go on."),
    field("fill", Kind::Group(&FILL), "Take the room in the writable layers of replicas."),
    field("empty", Kind::Group(&EMPTY), "Give that room back."),
    field("during", Kind::Groups(&DURING), "Faults while the load runs, each at its time."),
    field("require", Kind::Texts, "What must hold, such as `p95<200ms`, `errors<1%`, `no request lost` or `recovered within 30s`; what does not fails the run."),
    field("repeat", Kind::Count(1, MAX_REPETITIONS), "How often this load is carried out; the report shows the spread."),
] };

#[rustfmt::skip] // One key a line: these are tables.
pub static SCALE: Group = Group { title: "scale", fields: &[
    field("service", Kind::Text, "A service of the Compose file. Required."),
    field("replicas", Kind::Count(0, MAX_REPLICAS), "How many there are to be. Required."),
] };

const NODES: Field = field("nodes", Kind::Texts, "Names of virtual nodes of the Compose file.");
const REGION: Field = field("region", Kind::Text, "All nodes of this region.");
const LABELS: Field = field("labels", Kind::TextMap, "All nodes that have all of these labels.");
const LASTS: Field = field("for", Kind::Duration, "After this it ends by itself; by default it lasts on.");
const SERVICE: Field = field("service", Kind::Text, "A service of the Compose file. Required.");
const SHARE: Field = with_default(
    "share",
    Kind::Text,
    "100%",
    "How many of the replicas that it can befall: a share such as `30%`, rounded up, or a number.",
);
const SEED: Field = field(
    "seed",
    Kind::Count(0, u64::MAX),
    "Chance chooses them, the same ones for the same seed; by default those with the lowest numbers.",
);

#[rustfmt::skip] // One key a line: these are tables.
pub static CUT: Group = Group { title: "cut", fields: &[NODES, REGION, LABELS, LASTS] };

#[rustfmt::skip] // One key a line: these are tables.
pub static HEAL: Group = Group { title: "heal", fields: &[NODES, REGION, LABELS] };

#[rustfmt::skip] // One key a line: these are tables.
pub static SLOW: Group = Group { title: "slow", fields: &[
    NODES,
    REGION,
    LABELS,
    LASTS,
    field("latency", Kind::Duration, "How long each packet is under way, one way."),
    field("jitter", Kind::Duration, "How far the latency is spread in both directions."),
    field("loss", Kind::Text, "The share of packets that is lost, such as `1%`."),
    field("bandwidth", Kind::Text, "Bits a second, such as `10mbit`."),
] };

pub static KILL: Group = Group { title: "kill", fields: &[SERVICE, SHARE, SEED] };
pub static STOP: Group = Group { title: "stop", fields: &[SERVICE, SHARE, SEED, LASTS] };
pub static START: Group = Group { title: "start", fields: &[SERVICE, SHARE, SEED] };
pub static PAUSE: Group = Group { title: "pause", fields: &[SERVICE, SHARE, SEED, LASTS] };
pub static UNPAUSE: Group = Group { title: "unpause", fields: &[SERVICE, SHARE, SEED] };

#[rustfmt::skip] // One key a line: these are tables.
pub static FILL: Group = Group { title: "fill", fields: &[
    SERVICE,
    SHARE,
    SEED,
    LASTS,
    field("size", Kind::Text, "How much of each, such as `64m`; by default all up to the limit of the layer (`storage_opt`)."),
] };

pub static EMPTY: Group = Group { title: "empty", fields: &[SERVICE, SHARE, SEED] };

#[rustfmt::skip] // One key a line: these are tables.
pub static DURING: Group = Group { title: "during", fields: &[
    field("at", Kind::Duration, "After the load, or its repetition, has begun. Required."),
    field("cut", Kind::Group(&CUT), "As in a stage."),
    field("slow", Kind::Group(&SLOW), "As in a stage."),
    field("heal", Kind::Group(&HEAL), "As in a stage."),
    field("kill", Kind::Group(&KILL), "As in a stage."),
    field("stop", Kind::Group(&STOP), "As in a stage."),
    field("start", Kind::Group(&START), "As in a stage."),
    field("pause", Kind::Group(&PAUSE), "As in a stage, with a mapping."),
    field("unpause", Kind::Group(&UNPAUSE), "As in a stage."),
    field("fill", Kind::Group(&FILL), "As in a stage."),
    field("empty", Kind::Group(&EMPTY), "As in a stage."),
] };

#[rustfmt::skip] // One key a line: these are tables.
pub static WAIT: Group = Group { title: "wait", fields: &[
    field("service", Kind::Text, "The service that `ready` or `log` is about."),
    field("ready", Kind::Count(0, MAX_REPLICAS), "Until at least this many replicas of the service are ready."),
    field("log", Kind::Text, "Until a line of the service's output contains this text."),
    field("url", Kind::Text, "Until a GET of this address is answered."),
    field("status", Kind::Count(100, 599), "With `url`: the status that the answer must have; by default any from 200 to 399."),
    with_default("timeout", Kind::Duration, "1m", "After this the stage fails."),
] };

#[rustfmt::skip] // One key a line: these are tables.
pub static LOAD: Group = Group { title: "load", fields: &[
    field("service", Kind::Text, "The service to load, through the address that balances over its replicas."),
    field("port", Kind::Count(1, 65_535), "The service's port; needed only if it publishes or exposes several."),
    field("url", Kind::Text, "An address to load instead of a service."),
    with_default("path", Kind::Text, "/", "Path and query of each request to a service."),
    field("method", Kind::Text, "`POST` with a body or picture, else `GET`."),
    field("headers", Kind::TextMap, "Header fields of each request."),
    field("body", Kind::Text, "Body of each request."),
    field("image", Kind::Picture, "A random picture of this size as the body, a different one each time: `640x480` is JPEG, `640x480.png` PNG."),
    field("field", Kind::Text, "Send the picture as a file in this field of a form (`multipart/form-data`)."),
    with_default("clients", Kind::Count(1, MAX_CLIENTS), "1", "Closed loop: clients that each send a request when the one before is answered."),
    field("requests", Kind::Count(1, MAX_REQUESTS), "Closed loop: requests of each client."),
    with_default("think", Kind::Duration, "0s", "Closed loop: pause of a client between an answer and its next request."),
    field("rate", Kind::Rate, "Open loop: requests per second, sent whether or not the ones before are answered."),
    field("duration", Kind::Duration, "How long requests are sent: always with `rate`, instead of `requests` without."),
    with_default("arrivals", Kind::Choice(&["constant", "poisson"]), "constant", "Open loop: at equal distances, or at random ones as independent users would."),
    with_default("connections", Kind::Count(1, MAX_CLIENTS), "256", "Open loop: connections that may be in use at the same time."),
    with_default("warmup", Kind::Duration, "0s", "The same load for this long beforehand, not measured."),
    with_default("timeout", Kind::Duration, "30s", "A request that takes longer counts as an error."),
    with_default("follow_redirects", Kind::Count(0, 20), "0", "Redirects to follow; each request's time includes them."),
    with_default("success", Kind::Text, "2xx,3xx", "Statuses that count as success: `200`, `2xx`, `200-299`, several with commas."),
    with_default("http2", Kind::Flag, "false", "Speak HTTP/2 from the start."),
] };

impl Group {
    /// The names of all keys, for messages.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().map(|field| field.name)
    }
}

/// The JSON Schema (2020-12) of an experiment file.
///
/// Wherever something else than a text is wanted, a text with a variable is accepted too.
pub fn json_schema() -> Value {
    let mut schema = group(&EXPERIMENT);
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".into(), json!("Throng experiment"));
        map.insert("required".into(), json!(["stages"]));
    }
    schema
}

fn group(group: &Group) -> Value {
    let mut properties = Map::new();
    for field in group.fields {
        let mut schema = value(&field.kind);
        if let Value::Object(map) = &mut schema {
            map.insert("description".into(), json!(field.help));
            if let Some(default) = field.default {
                map.insert("default".into(), json!(default));
            }
        }
        properties.insert(field.name.into(), schema);
    }
    json!({
        "type": "object",
        "properties": properties,
        "patternProperties": { "^x-": {} },
        "additionalProperties": false,
    })
}

fn value(kind: &Kind) -> Value {
    let or_variable = |schema: Value| json!({ "anyOf": [schema, { "type": "string", "pattern": "\\$" }] });
    let scalar = json!(["string", "number", "boolean"]);
    match kind {
        Kind::Text => json!({ "type": ["string", "number"] }),
        Kind::Count(least, most) => {
            or_variable(json!({ "type": "integer", "minimum": least, "maximum": most }))
        }
        Kind::Rate => or_variable(json!({ "type": "number", "exclusiveMinimum": 0 })),
        Kind::Duration => json!({ "type": "string", "pattern": "^([0-9.]+(ns|us|µs|ms|s|m|h|d))+$|^0$|\\$" }),
        Kind::Flag => or_variable(json!({ "type": "boolean" })),
        Kind::Picture => json!({ "type": "string", "pattern": "^[0-9]+x[0-9]+([.](jpg|jpeg|png))?$|\\$" }),
        Kind::Choice(words) => or_variable(json!({ "enum": words })),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::TextMap => json!({ "type": "object", "additionalProperties": { "type": scalar } }),
        Kind::Nothing => json!({ "type": "null" }),
        Kind::Group(of) => group(of),
        Kind::DurationOr(of) => json!({ "anyOf": [value(&Kind::Duration), group(of)] }),
        Kind::Groups(of) => {
            json!({ "type": "array", "minItems": 1, "maxItems": MAX_STAGES, "items": group(of) })
        }
    }
}

/// One table of keys for each mapping of the file, as `docs/experiment.md` shows them: (title, table).
pub fn markdown_tables() -> Vec<(&'static str, String)> {
    let faults = [&CUT, &SLOW, &HEAL, &KILL, &STOP, &START, &PAUSE, &UNPAUSE, &FILL, &EMPTY, &DURING];
    let all = [&EXPERIMENT, &STAGE, &SCALE, &LOAD, &WAIT].into_iter().chain(faults);
    all.map(|group| (group.title, markdown(group))).collect()
}

fn markdown(group: &Group) -> String {
    let mut table = String::from("| key | value | default | meaning |\n|---|---|---|---|\n");
    for field in group.fields {
        let value = match &field.kind {
            Kind::Text => "text".into(),
            Kind::Count(least, most) => format!("{least} to {most}"),
            Kind::Rate => "number above 0".into(),
            Kind::Duration => "duration, `1m30s`".into(),
            Kind::Flag => "`true` or `false`".into(),
            Kind::Picture => "`640x480`".into(),
            Kind::Choice(words) => {
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ")
            }
            Kind::Texts => "list of texts".into(),
            Kind::TextMap => "mapping of texts".into(),
            Kind::Nothing => "none".into(),
            Kind::Group(_) => "mapping, below".into(),
            Kind::DurationOr(_) => "duration, `1m30s`, or mapping, below".into(),
            Kind::Groups(_) => "list of mappings, below".into(),
        };
        let default = field.default.map_or(String::new(), |default| format!("`{default}`"));
        table += &format!("| `{}` | {value} | {default} | {} |\n", field.name, field.help);
    }
    table
}
