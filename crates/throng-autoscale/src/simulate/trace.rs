//! A recorded demand, read from CSV.
//!
//! The first line names the columns. One is the time: seconds as a number, or moments in RFC 3339; whichever it is, the
//! first row is the beginning. Another is the demand at that moment. Lines that begin with `#` are left out.

use super::demand::{DEMAND_MOST, Demand, SECONDS_MOST, Unit};

/// Longest file that is read, in bytes.
pub const BYTES_MOST: u64 = 64 << 20;
/// Most rows of a file.
pub const ROWS_MOST: usize = 1_000_000;
/// Rows further apart than this many times the usual distance leave a hole, unless a longest gap is given.
pub const HOLE_FACTOR: f64 = 10.0;

const TIME_NAMES: [&str; 5] = ["time", "time_seconds", "seconds", "timestamp", "t"];
const REQUEST_NAMES: [&str; 5] = ["requests_per_second", "requests", "rps", "rate", "demand"];
const CORE_NAMES: [&str; 3] = ["cpu_cores", "cores", "cpu"];

/// What is asked between two rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Between {
    /// It goes from one to the other in a straight line.
    #[default]
    Line,
    /// The first holds until the second.
    Hold,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct TraceOptions {
    /// The demand's column, where its name is not one of the usual ones.
    pub column: Option<String>,
    /// What the demand is counted in, where its column's name does not say it.
    pub unit: Option<Unit>,
    pub between: Between,
    /// The longest time between two rows, in seconds; longer ones are holes.
    pub gap_most: Option<f64>,
}

/// Why a trace cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TraceError {
    /// Where in the file, from 1; `None` if it is about all of it.
    pub line: Option<u64>,
    pub message: String,
    /// What to do next.
    pub hint: String,
}

fn wrong(line: impl Into<Option<u64>>, message: impl Into<String>, hint: impl Into<String>) -> TraceError {
    TraceError { line: line.into(), message: message.into(), hint: hint.into() }
}

/// Where the columns are, and what the demand is counted in.
struct Columns {
    time: usize,
    demand: usize,
    unit: Unit,
}

struct Row {
    line: u64,
    /// Seconds, from wherever the file counts.
    time: f64,
    demand: f64,
}

/// Reads a trace.
///
/// # Errors
/// What is no CSV, has no such columns, has a row that is not a time and a demand from 0 to [`DEMAND_MOST`], whose time
/// does not advance, or which has a hole; fewer than two rows; and what is beyond a limit of this module or longer than
/// [`SECONDS_MOST`].
pub fn read(text: &[u8], options: &TraceOptions) -> Result<Demand, TraceError> {
    if text.len() as u64 > BYTES_MOST {
        let message = format!("the trace is longer than {} MiB", BYTES_MOST >> 20);
        return Err(wrong(None, message, "simulate a part of it, or take one row a minute"));
    }
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).comment(Some(b'#')).from_reader(text);
    let header = reader.headers().map_err(|error| unreadable(&error))?.clone();
    let columns = columns(&header, options)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut begins = None;
    for record in reader.records() {
        let record = record.map_err(|error| unreadable(&error))?;
        let line = record.position().map_or(0, |position| line_of(text, position));
        if rows.len() == ROWS_MOST {
            let message = format!("the trace has more than {ROWS_MOST} rows");
            return Err(wrong(line, message, "simulate a part of it, or take one row a minute"));
        }
        let (time, moment) = time(record.get(columns.time).unwrap_or_default(), line)?;
        if rows.is_empty() {
            begins = moment;
        } else if begins.is_some() != moment.is_some() {
            let message = "seconds and moments in RFC 3339 are mixed in one trace";
            return Err(wrong(line, message, "write all times in the way of the first row"));
        }
        let demand = amount(record.get(columns.demand).unwrap_or_default(), line)?;
        if let Some(before) = rows.last().filter(|before| time <= before.time) {
            return Err(backwards(before, line, time));
        }
        rows.push(Row { line, time, demand });
    }
    check_length(&rows)?;
    check_holes(&rows, options.gap_most)?;
    Ok(Demand { unit: columns.unit, seconds: seconds(&rows, options.between), begins })
}

/// The line on which a record begins. Its position is where the one before ended: blank lines and remarks come in between.
fn line_of(text: &[u8], position: &csv::Position) -> u64 {
    let rest = usize::try_from(position.byte()).ok().and_then(|from| text.get(from..)).unwrap_or_default();
    let lines = rest.split(|byte| *byte == b'\n');
    let skipped = lines.take_while(|line| line.trim_ascii().is_empty() || line.starts_with(b"#"));
    position.line() + skipped.count() as u64
}

fn unreadable(error: &csv::Error) -> TraceError {
    let line = error.position().map(csv::Position::line);
    wrong(line, "this is no text in UTF-8", "save the trace as CSV in UTF-8")
}

fn columns(header: &csv::StringRecord, options: &TraceOptions) -> Result<Columns, TraceError> {
    let names: Vec<String> =
        header.iter().map(|name| name.to_lowercase().replace([' ', '-', '.'], "_")).collect();
    let found = || header.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let among = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
    if names.iter().any(|name| name.parse::<f64>().is_ok()) || names.is_empty() {
        let hint = "begin it with a line such as: time,requests_per_second";
        return Err(wrong(1, "the trace has no line that names its columns", hint));
    }
    let time = among(&TIME_NAMES).ok_or_else(|| {
        let message = format!("no column is the time: there are {}", found());
        wrong(1, message, format!("name it {}", TIME_NAMES.join(" or ")))
    })?;
    let demand = match &options.column {
        Some(wanted) => header.iter().position(|name| name == wanted).ok_or_else(|| {
            let message = format!("there is no column {wanted:?}: there are {}", found());
            wrong(1, message, "give one of these names to --column")
        })?,
        None => {
            let usual = |name: &&str| REQUEST_NAMES.contains(name) || CORE_NAMES.contains(name);
            let mut usual = names.iter().enumerate().filter(|(_, name)| usual(&name.as_str()));
            match (usual.next(), usual.next()) {
                (Some((only, _)), None) => only,
                (Some(_), Some(_)) => {
                    let message = format!("more than one column could be the demand: there are {}", found());
                    return Err(wrong(1, message, "say which one with --column NAME"));
                }
                (None, _) => {
                    let message = format!("no column is the demand: there are {}", found());
                    let names = [&REQUEST_NAMES[..], &CORE_NAMES].concat().join(", ");
                    let hint = format!("name it one of {names}; or say which one it is with --column NAME");
                    return Err(wrong(1, message, hint));
                }
            }
        }
    };
    let cores = names.get(demand).is_some_and(|name| CORE_NAMES.contains(&name.as_str()));
    let unit = options.unit.unwrap_or(if cores { Unit::Cores } else { Unit::Requests });
    Ok(Columns { time, demand, unit })
}

/// A time in seconds and, if it was written as a moment, that moment.
fn time(text: &str, line: u64) -> Result<(f64, Option<String>), TraceError> {
    let hint = "a time is a number of seconds, or a moment such as 2026-03-01T12:00:00Z";
    if text.is_empty() {
        return Err(wrong(line, "the time is missing", hint));
    }
    if let Some(seconds) = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite()) {
        return Ok((seconds, None));
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(moment) => {
            // Whole and fractional seconds apart: a float holds today's moments to a quarter of a microsecond only.
            let seconds = moment.as_second() as f64 + f64::from(moment.subsec_nanosecond()) / 1e9;
            Ok((seconds, Some(moment.to_string())))
        }
        Err(_) => Err(wrong(line, format!("{text:?} is no time"), hint)),
    }
}

fn amount(text: &str, line: u64) -> Result<f64, TraceError> {
    if text.is_empty() {
        let hint = "write 0 where nothing was asked; leave out rows of which nothing is known";
        return Err(wrong(line, "the demand is missing", hint));
    }
    let Some(demand) = text.parse::<f64>().ok().filter(|demand| demand.is_finite()) else {
        return Err(wrong(line, format!("{text:?} is no demand"), "write a number, with a point as in 12.5"));
    };
    if demand < 0.0 {
        let hint = "correct the row; a counter that was reset has to become a rate first";
        return Err(wrong(line, format!("the demand is below 0: {demand}"), hint));
    }
    if demand > DEMAND_MOST {
        let message = format!("the demand is above {DEMAND_MOST}: {demand}");
        return Err(wrong(line, message, "count it in thousands, and the capacity of a replica too"));
    }
    Ok(demand)
}

fn backwards(before: &Row, line: u64, time: f64) -> TraceError {
    let at = before.line;
    if time == before.time {
        let hint = "keep one of the two rows; where demand jumps, set the second one a moment later";
        return wrong(line, format!("this is the same time as on line {at}"), hint);
    }
    let message = format!("time runs backwards: this is {} before line {at}", length(before.time - time));
    wrong(line, message, "sort the rows by time; if a clock was set back, cut the trace there")
}

fn check_length(rows: &[Row]) -> Result<(), TraceError> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Err(wrong(None, "the trace has no rows", "it needs two at least"));
    };
    if rows.len() < 2 {
        return Err(wrong(
            first.line,
            "the trace has one row only",
            "it needs two at least: the last one ends it",
        ));
    }
    let took = last.time - first.time;
    if took > SECONDS_MOST as f64 {
        let message = format!(
            "the trace lasts {}: {} at most are simulated",
            length(took),
            length(SECONDS_MOST as f64)
        );
        return Err(wrong(
            last.line,
            message,
            "simulate a part of it; if its times are milliseconds, make them seconds",
        ));
    }
    Ok(())
}

fn check_holes(rows: &[Row], most: Option<f64>) -> Result<(), TraceError> {
    let mut gaps: Vec<f64> = rows.windows(2).map(|pair| pair[1].time - pair[0].time).collect();
    let widest = match most {
        Some(most) => most,
        None => {
            let middle = gaps.len() / 2;
            *gaps.select_nth_unstable_by(middle, f64::total_cmp).1 * HOLE_FACTOR
        }
    };
    let hole = rows.windows(2).find(|pair| pair[1].time - pair[0].time > widest);
    let Some([before, after]) = hole else { return Ok(()) };
    let gap = after.time - before.time;
    let usual = match most {
        Some(most) => format!("{} at most were allowed", length(most)),
        None => format!("they are usually {} apart", length(widest / HOLE_FACTOR)),
    };
    let message =
        format!("the trace has a hole: {} without a row since line {}; {usual}", length(gap), before.line);
    let hint =
        format!("fill it in, cut the trace there, or bridge such holes with --max-gap {}s", gap.ceil());
    Err(wrong(after.line, message, hint))
}

/// A length of time for people: `75 s`, `2 h 05 min`, `3 days 04 h`.
pub(super) fn length(seconds: f64) -> String {
    let whole = seconds.round();
    if seconds < 120.0 {
        let text = format!("{seconds:.3}");
        format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
    } else if whole < 7_200.0 {
        format!("{:.0} min {:02.0} s", (whole / 60.0).floor(), whole % 60.0)
    } else if whole < 172_800.0 {
        format!("{:.0} h {:02.0} min", (whole / 3_600.0).floor(), (whole % 3_600.0 / 60.0).floor())
    } else {
        format!("{:.0} days {:02.0} h", (whole / 86_400.0).floor(), (whole % 86_400.0 / 3_600.0).floor())
    }
}

/// The mean of each second: what was asked in all stays exactly what the rows say. The last second may be a part of one.
fn seconds(rows: &[Row], between: Between) -> Vec<f64> {
    let first = rows.first().map_or(0.0, |row| row.time);
    let end = rows.last().map_or(0.0, |row| row.time) - first;
    let mut seconds = vec![0.0; (end.ceil() as usize).clamp(1, SECONDS_MOST)];
    for pair in rows.windows(2) {
        let (from, to) = (pair[0].time - first, pair[1].time - first);
        let value = |at: f64| match between {
            Between::Hold => pair[0].demand,
            Between::Line => pair[0].demand + (pair[1].demand - pair[0].demand) * ((at - from) / (to - from)),
        };
        let mut at = from;
        while at < to {
            let next = (at.floor() + 1.0).min(to);
            if let Some(second) = seconds.get_mut(at as usize) {
                *second += value((at + next) / 2.0) * (next - at);
            }
            at = next;
        }
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(text: &str) -> Result<Demand, TraceError> {
        read(text.as_bytes(), &TraceOptions::default())
    }

    #[test]
    fn rows_become_seconds() {
        let line = plain("time,rps\n0,0\n4,8\n").expect("a trace");
        assert_eq!(line.seconds, [1.0, 3.0, 5.0, 7.0]);
        assert_eq!((line.unit, line.begins), (Unit::Requests, None));
        let hold = TraceOptions { between: Between::Hold, ..TraceOptions::default() };
        let steps = read(b"seconds,cores\n# a jump\n100,2\n101.5,4\n103,9\n", &hold).expect("a trace");
        assert_eq!(steps.seconds, [2.0, 3.0, 4.0]);
        assert_eq!(steps.unit, Unit::Cores);
        let moments =
            "\u{feff}rate , Timestamp\r\n 10 ,2026-03-01T12:00:00+01:00\r\n20,2026-03-01T11:00:02Z\r\n";
        let moments = plain(moments).expect("a trace");
        assert_eq!(moments.seconds, [12.5, 17.5]);
        assert_eq!(moments.begins.as_deref(), Some("2026-03-01T11:00:00Z"));
        let named =
            TraceOptions { column: Some("web".into()), unit: Some(Unit::Cores), ..TraceOptions::default() };
        let named = read(b"time,db,web\n0,1,2\n1,1,2\n", &named).expect("a trace");
        assert_eq!((named.seconds, named.unit), (vec![2.0], Unit::Cores));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, message) in [
            ("", Some(1), "no line that names its columns"),
            ("0,5\n1,5\n", Some(1), "no line that names its columns"),
            ("when,rps\n0,5\n", Some(1), "no column is the time: there are \"when\", \"rps\""),
            ("time,users\n0,5\n", Some(1), "no column is the demand"),
            ("time,rps,cpu\n0,5,1\n", Some(1), "more than one column could be the demand"),
            ("time,rps\n", None, "the trace has no rows"),
            ("time,rps\n0,1\n", Some(2), "one row only"),
            ("time,rps\n0,1\n1,\n", Some(3), "the demand is missing"),
            ("time,rps\n0,1\n1\n", Some(3), "the demand is missing"),
            ("time,rps\n0,1\n,1\n", Some(3), "the time is missing"),
            ("time,rps\n0,1\n\n2,-1\n", Some(4), "the demand is below 0: -1"),
            ("time,rps\n0,1\n2,1e10\n", Some(3), "the demand is above 1000000000"),
            ("time,rps\n0,1\n2,\"1,5\"\n", Some(3), "\"1,5\" is no demand"),
            ("time,rps\n0,NaN\n2,1\n", Some(2), "\"NaN\" is no demand"),
            ("time,rps\nnoon,1\n", Some(2), "\"noon\" is no time"),
            ("time,rps\ninf,1\n", Some(2), "\"inf\" is no time"),
            (
                "time,rps\n0,1\n10,1\n# set back\n4,1\n",
                Some(5),
                "time runs backwards: this is 6 s before line 3",
            ),
            ("time,rps\n0,1\n10,1\n10,1\n", Some(4), "the same time as on line 3"),
            ("time,rps\n0,1\n2026-03-01T11:00:00Z,1\n", Some(3), "mixed"),
            (
                "time,rps\n0,1\n1,1\n2,1\n13,1\n14,1\n",
                Some(5),
                "a hole: 11 s without a row since line 4; they are usually 1 s apart",
            ),
            ("time,rps\n0,1\n3e6,1\n", Some(3), "the trace lasts 34 days 17 h: 31 days 00 h at most"),
        ] {
            let error = plain(text).expect_err(text);
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.message.contains(message), "{text:?}: {error}");
            assert!(!error.hint.is_empty());
        }
        assert!(read(b"time,rps\n0,\xff\n", &TraceOptions::default()).is_err());
        let column = TraceOptions { column: Some("web".into()), ..TraceOptions::default() };
        let error = read(b"time,rps\n0,1\n1,1\n", &column).expect_err("no such column");
        assert!(error.message.contains("no column \"web\""), "{error}");
    }

    #[test]
    fn holes_are_what_is_longer_than_allowed() {
        let text = b"time,rps\n0,1\n1,1\n2,1\n13,1\n14,1\n";
        let allowed = |most| read(text, &TraceOptions { gap_most: Some(most), ..TraceOptions::default() });
        assert_eq!(allowed(11.0).map(|demand| demand.length()), Ok(14));
        let error = allowed(10.0).expect_err("a hole");
        assert!(error.message.contains("10 s at most were allowed"), "{error}");
        assert!(error.hint.contains("--max-gap 11s"), "{}", error.hint);
    }

    #[test]
    fn limits_hold() {
        let long = vec![b'#'; BYTES_MOST as usize + 1];
        assert!(read(&long, &TraceOptions::default()).is_err_and(|error| error.message.contains("64 MiB")));
        let mut rows = String::from("time,rps\n");
        for row in 0..=ROWS_MOST {
            rows += &format!("{row},1\n");
        }
        let error = plain(&rows).expect_err("too many rows");
        assert!(error.message.contains("more than 1000000 rows"), "{error}");
    }

    proptest! {
        #[test]
        fn nothing_is_added_or_lost(
            gaps in prop::collection::vec((0.1f64..9.0, 0.0f64..1000.0), 1..50), start in -1e6f64..2e9, hold in any::<bool>(),
        ) {
            let (mut time, mut text, mut before, mut expected) = (start, format!("time,rps\n{start},7\n"), 7.0, 0.0);
            for (gap, demand) in &gaps {
                let next = time + gap;
                let gap = next - time;
                text += &format!("{next},{demand}\n");
                expected += gap * if hold { before } else { (before + demand) / 2.0 };
                (time, before) = (next, *demand);
            }
            let between = if hold { Between::Hold } else { Between::Line };
            let options = TraceOptions { between, gap_most: Some(1e6), ..TraceOptions::default() };
            let demand = read(text.as_bytes(), &options).expect("a trace");
            let sum: f64 = demand.seconds.iter().sum();
            prop_assert!((sum - expected).abs() <= 1e-3 * (1.0 + expected), "{} is not {}", sum, expected);
            prop_assert!(demand.seconds.iter().all(|value| value.is_finite() && *value >= 0.0));
        }

        #[test]
        fn any_bytes_are_read_or_refused(text in "(time|t|rps|cpu|,|\n|[0-9.eE+-]|\"|Z|T|#){0,60}") {
            if let Err(error) = plain(&text) {
                prop_assert!(!error.message.is_empty() && !error.hint.is_empty());
            }
        }
    }
}
