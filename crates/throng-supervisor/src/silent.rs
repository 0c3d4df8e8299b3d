//! Walls that print nothing, told without being asked.
//!
//! A look at the host every few seconds is set against the one before. Where its counters say that a wall was met while
//! the app had replicas, an event says which, by what, and what moves it; the same wall again only after a while.
//!
//! Only counters that no program is told of are looked at: whoever is refused a task or killed for want of memory is
//! told so, and a busy CPU is no fault. What the whole host counts may be others' doing, so each look is compared with
//! the last one only, and what falls off at interfaces of others is subtracted (`throng_walls`).

use crate::actor::{Fixed, Order};
use crate::backend::Backend;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use throng_walls::{Counters, Demand, Evidence, Explanation, Host, Source, WallId, explain, standing};
use tokio::sync::{mpsc, oneshot};

/// How often the host is looked at, unless [`PERIOD`] says otherwise. A look takes about a millisecond of one core.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// In seconds, as 0.5; 0 turns it off.
const PERIOD: &str = "THRONG_WALLS_PERIOD";
const PERIODS: std::ops::RangeInclusive<f64> = 0.01..=86_400.0;
/// The same wall is told again after this time at the earliest.
const TOLD_EVERY: Duration = Duration::from_secs(600);
/// The packet filter is asked by running commands, some hundredths of a second, so less often.
const FILTER_EVERY: Duration = Duration::from_secs(60);
/// What is a state rather than a count must be so for this time to be told: it comes and goes by itself. Until then it
/// is looked at more often.
const LASTING: Duration = Duration::from_secs(1);
const LASTING_LOOK: Duration = Duration::from_millis(200);
/// Namespaces that others may make in that time.
const OF_OTHERS: u64 = 64;
/// How long a look stays the one that others are compared with while replicas leave a few at a time.
const LEAVING: Duration = Duration::from_secs(60);
/// The fewest starts between two looks whose average says something.
const STARTS_LEAST: u64 = 20;
/// Who may wait for a look; more are not kept waiting.
const ASKED_MOST: usize = 64;

/// What the events of walls are about.
pub const SUBJECT: &str = "host";

/// Asks for a look now; answered when everything that it found is among the events.
pub type Asked = oneshot::Sender<()>;

pub fn channel() -> (mpsc::Sender<Asked>, mpsc::Receiver<Asked>) {
    mpsc::channel(ASKED_MOST)
}

/// What the actor knows of its replicas that a look is set against.
#[derive(Debug, Clone, Copy, Default)]
pub struct Census {
    /// Replicas that exist, in whatever state.
    pub present: u64,
    pub networks: u64,
    /// Starts that went well, and what all of them took together, since this supervisor began.
    pub starts: u64,
    pub took: Duration,
}

/// One look.
#[derive(Debug, Clone)]
struct Look {
    at: SystemTime,
    host: Arc<Host>,
    census: Census,
}

/// Looks until the actor is gone.
pub async fn keep(fixed: Arc<Fixed>, orders: mpsc::Sender<Order>, mut asked: mpsc::Receiver<Asked>) {
    // Plain processes have no networks and no namespaces of their own.
    let period = period().filter(|_| fixed.backend.isolation() != "process");
    // Docker lets the frames of its own bridges through, and an ordinary user's networks are where no rules are.
    let filtered = matches!(fixed.backend, Backend::Local(_)) && fixed.backend.isolation() == "container";
    let mut eyes = Eyes { filtered, filter: None, source: Source::live(&fixed.paths.data) };
    let mut watch = Watch::default();
    loop {
        let due = async {
            match period {
                Some(period) => tokio::time::sleep(period).await,
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            () = due => None,
            answer = asked.recv() => match answer {
                Some(answer) => Some(answer),
                None => return,
            },
        };
        // Somebody waits for the answer: what takes longest is left to the next look that is due.
        let depth = if answer.is_some() { Depth::Quick } else { Depth::Whole };
        if period.is_some() && !look(&mut eyes, &mut watch, &orders, depth).await {
            return;
        }
        // Nobody need be waiting any more.
        let _ = answer.map(|answer| answer.send(()));
    }
}

/// Looks, and once more a little later where that decides. `false` if nobody is there any more to be told.
async fn look(eyes: &mut Eyes, watch: &mut Watch, orders: &mpsc::Sender<Order>, depth: Depth) -> bool {
    let mut depth = depth;
    loop {
        let (reply, census) = oneshot::channel();
        if orders.send(Order::Census { reply }).await.is_err() {
            return false;
        }
        let Ok(census) = census.await else { return false };
        // One that cannot be taken is missed by nobody: the next one is compared with the last.
        let Some(look) = eyes.look(census, depth).await else { return true };
        let (said, again) = watch.take(look, Instant::now());
        for wall in said {
            let said = Order::Say { kind: "warning", subject: SUBJECT.into(), message: wall.told() };
            if orders.send(said).await.is_err() {
                return false;
            }
        }
        if !again {
            return true;
        }
        depth = Depth::Close;
        tokio::time::sleep(LASTING_LOOK).await;
    }
}

/// How much of the host is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// In a millisecond: all but namespaces.
    Quick,
    Whole,
    /// With what says whether namespaces are being removed.
    Close,
}

fn period() -> Option<Duration> {
    let text = std::env::var(PERIOD).ok();
    let seconds = text.and_then(|text| text.trim().parse::<f64>().ok());
    match seconds {
        Some(0.0) => None,
        Some(seconds) if seconds.is_finite() => {
            Some(Duration::from_secs_f64(seconds.clamp(*PERIODS.start(), *PERIODS.end())))
        }
        _ => Some(LOOK_EVERY),
    }
}

/// What looks are made with.
struct Eyes {
    /// Frames between replicas may pass the host's packet filter.
    filtered: bool,
    /// What it said when it was asked last.
    filter: Option<(Instant, throng_walls::Filter)>,
    source: Source,
}

impl Eyes {
    async fn look(&mut self, census: Census, depth: Depth) -> Option<Look> {
        let source = self.source.clone();
        let pulse = move || {
            let host = Host::pulse(&source);
            match depth {
                Depth::Quick => host,
                Depth::Whole => host.with_namespaces(&source),
                Depth::Close => host.with_namespaces(&source).with_removals(&source),
            }
        };
        let mut host = apart(pulse).await?;
        let asks = self.filtered
            && census.networks > 0
            && host.setting("net.bridge.bridge-nf-call-iptables") == Some(1);
        if asks {
            host = self.ask_filter(host).await?;
        }
        Some(Look { at: SystemTime::now(), host: Arc::new(host), census })
    }

    async fn ask_filter(&mut self, host: Host) -> Option<Host> {
        if let Some((at, filter)) = &self.filter
            && at.elapsed() < FILTER_EVERY
        {
            return Some(Host { filter: filter.clone(), ..host });
        }
        let source = self.source.clone();
        let host = apart(move || host.filtered(&source)).await?;
        self.filter = Some((Instant::now(), host.filter.clone()));
        Some(host)
    }
}

/// Runs what blocks on a thread of its own. `None` where the host allows no more threads, which must not end the watch.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, done) = oneshot::channel();
    let run = move || drop(send.send(work()));
    std::thread::Builder::new().name("throng-walls".into()).spawn(run).ok()?;
    done.await.ok()
}

/// What looks have shown so far. Pure: says what is to be told.
#[derive(Default)]
struct Watch {
    last: Option<Look>,
    /// The last look at which no namespaces of replicas that are gone were left, and when that was.
    calm: Option<(Look, Instant)>,
    /// Since when some are left, and how many namespaces there were then.
    lingering: Option<(Instant, u64)>,
    /// The look with the fewest replicas at which the average start was known, and that.
    early: Option<(Look, Duration)>,
    told: BTreeMap<WallId, Instant>,
}

impl Watch {
    /// The walls to be told now, and whether another look is wanted soon.
    fn take(&mut self, look: Look, now: Instant) -> (Vec<Explanation>, bool) {
        let mut found: Vec<Explanation> = Vec::new();
        found.extend(self.lost(&look));
        found.extend(self.slower(&look));
        let standing = || standing(&look.host, &Demand::of(look.census.present.max(2)));
        found.extend((look.census.networks > 0).then(standing).flatten());
        let (removed, again) = self.removals(&look, now);
        found.extend(removed);
        self.last = Some(look);
        let due = |wall: &Explanation| {
            let lately = |told: &Instant| now.saturating_duration_since(*told) < TOLD_EVERY;
            !self.told.get(&wall.row.id).is_some_and(lately)
        };
        found.retain(due);
        self.told.extend(found.iter().map(|wall| (wall.row.id, now)));
        (found, again)
    }

    /// Namespaces that are still being removed, and whether another look is wanted to be sure.
    fn removals(&mut self, look: &Look, now: Instant) -> (Option<Explanation>, bool) {
        // Not looked for this time.
        let Some(count) = look.host.counters.net_namespaces else { return (None, false) };
        // Replicas that leave one after the other leave few namespaces between two looks, and many altogether.
        if self.lingers(look).is_none() && self.leaves_some(look, now) {
            self.lingering = None;
            return (None, false);
        }
        let lingers = self.lingers(look);
        let (since, first) = *self.lingering.get_or_insert((now, count));
        // Many more than there were are somebody else's.
        let lingers = lingers.filter(|_| count <= first + OF_OTHERS);
        let again = lingers.is_some() && now.saturating_duration_since(since) < LASTING;
        // Only a kernel that is at work at each look has something left to remove: others are held, or only remembered.
        let lingers = lingers.filter(|_| look.host.counters.removing_namespaces == Some(true));
        if again {
            return (None, true);
        }
        (self.calm, self.lingering) = (Some((look.clone(), now)), None);
        (lingers, false)
    }

    /// Whether replicas have left of late, and there are namespaces that may have been theirs.
    fn leaves_some(&self, look: &Look, now: Instant) -> bool {
        let Some((before, since)) = &self.calm else { return false };
        let beside =
            |look: &Look| Some(look.host.counters.net_namespaces?.saturating_sub(look.census.present));
        look.census.present < before.census.present
            && beside(look) > beside(before)
            && now.saturating_duration_since(*since) < LEAVING
    }

    /// What counters say has been lost since the last look.
    fn lost(&self, look: &Look) -> Option<Explanation> {
        let before = self.last.as_ref()?;
        // Nothing of what was counted can have been lost to replicas that were not there.
        if before.census.present.max(look.census.present) == 0 || look.census.networks == 0 {
            return None;
        }
        let counted = |host: &Host| Host {
            settings: host.settings.clone(),
            memory: host.memory,
            counters: Counters { oom_kills: None, net_namespaces: None, ..host.counters.clone() },
            ..Host::default()
        };
        explain(&Evidence {
            before: Some(counted(&before.host)),
            after: Some(counted(&look.host)),
            ..evidence(before, look)
        })
    }

    /// Namespaces of replicas that have gone since all was calm.
    fn lingers(&self, look: &Look) -> Option<Explanation> {
        let (before, _) = self.calm.as_ref()?;
        let counted = |host: &Host| Host {
            settings: host.settings.clone(),
            counters: Counters {
                net_namespaces: host.counters.net_namespaces,
                removing_namespaces: host.counters.removing_namespaces,
                ..Counters::default()
            },
            ..Host::default()
        };
        explain(&Evidence {
            before: Some(counted(&before.host)),
            after: Some(counted(&look.host)),
            replicas: Some((before.census.present, look.census.present)),
            ..evidence(before, look)
        })
    }

    /// Starts that have become slower while something else has grown with the number of replicas.
    fn slower(&mut self, look: &Look) -> Option<Explanation> {
        let before = self.last.as_ref()?;
        let starts = look.census.starts.saturating_sub(before.census.starts);
        if starts < STARTS_LEAST {
            return None;
        }
        let average = look.census.took.saturating_sub(before.census.took) / u32::try_from(starts).ok()?;
        let Some((early, first)) =
            self.early.as_ref().filter(|(early, _)| early.census.present <= look.census.present)
        else {
            self.early = Some((look.clone(), average));
            return None;
        };
        let mounts = |host: &Host| Host { mounts: host.mounts, ..Host::default() };
        explain(&Evidence {
            before: Some(mounts(&early.host)),
            after: Some(mounts(&look.host)),
            replicas: Some((early.census.present, look.census.present)),
            start: Some((*first, average)),
            ..evidence(early, look)
        })
    }
}

fn evidence(before: &Look, after: &Look) -> Evidence {
    let demand = Demand::of(before.census.present.max(after.census.present));
    Evidence { since: Some(before.at), demand: Some(demand), ..Evidence::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(present: u64, change: impl FnOnce(&mut Host)) -> Look {
        let mut host = Host::default();
        let zero = Some(0);
        host.counters = Counters {
            backlog_drops: zero,
            other_drops: zero,
            arp_fulls: zero,
            oom_kills: zero,
            net_namespaces: Some(40 + present),
            ..Counters::default()
        };
        change(&mut host);
        let census = Census { present, networks: 1, ..Census::default() };
        Look { at: SystemTime::UNIX_EPOCH, host: Arc::new(host), census }
    }

    fn names(told: &(Vec<Explanation>, bool)) -> Vec<&'static str> {
        told.0.iter().map(|wall| wall.row.name).collect()
    }

    #[test]
    fn what_is_lost_is_told_once_in_a_while_and_only_to_replicas() {
        let (mut watch, begin) = (Watch::default(), Instant::now());
        let drops = |present, count| look(present, |host| host.counters.backlog_drops = Some(count));
        assert!(names(&watch.take(drops(0, 50), begin)).is_empty(), "nothing before the first look");
        assert!(names(&watch.take(drops(0, 90), begin)).is_empty(), "nobody was there");
        assert!(names(&watch.take(drops(5, 99), begin)).is_empty(), "too few");
        let told = watch.take(drops(5, 200), begin);
        assert_eq!(names(&told), ["broadcast-backlog"]);
        let text = told.0[0].told();
        assert!(text.contains("101 more since 00:00:00 UTC (99 then, 200 now)"), "{text}");
        assert!(names(&watch.take(drops(5, 300), begin + TOLD_EVERY / 2)).is_empty(), "told already");
        let other = look(5, |host| {
            host.counters.backlog_drops = Some(400);
            host.counters.arp_fulls = Some(1);
        });
        assert_eq!(names(&watch.take(other, begin)), ["neighbour-table"]);
        let again = look(5, |host| {
            host.counters.backlog_drops = Some(500);
            host.counters.arp_fulls = Some(1);
        });
        assert_eq!(names(&watch.take(again, begin + TOLD_EVERY)), ["broadcast-backlog"]);
    }

    #[test]
    fn what_programs_are_told_themselves_is_not_told_again() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        watch.take(look(5, |_| {}), now);
        let busy = look(5, |host| {
            host.counters.oom_kills = Some(3);
            let stall = Some(throng_walls::Stall { average: 99.0, total: 1 });
            host.pressure = throng_walls::Pressure { cpu: stall, memory: None, io: None };
        });
        assert_eq!(watch.take(busy, now), (vec![], false));
    }

    #[test]
    fn namespaces_that_linger_are_told_if_they_still_do_a_little_later() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        let namespaces = |present, count| {
            look(present, |host| {
                host.counters.net_namespaces = Some(count);
                host.counters.removing_namespaces = Some(true);
            })
        };
        watch.take(namespaces(1_000, 1_040), now);
        assert!(watch.take(namespaces(0, 900), now).1, "looks again");
        assert_eq!(watch.take(namespaces(0, 60), now), (vec![], false), "they were quick");
        watch.take(namespaces(1_000, 1_060), now);
        assert!(watch.take(namespaces(0, 900), now).1);
        assert_eq!(names(&watch.take(namespaces(0, 800), now + LASTING / 2)), [""; 0]);
        let told = watch.take(namespaces(0, 700), now + LASTING);
        assert_eq!((names(&told), told.1), (vec!["namespaces"], false));
        assert!(told.0[0].told().contains("640 network namespaces of replicas that are gone"), "{told:?}");
        // What the kernel has only not forgotten yet.
        let idle = |count| {
            look(0, |host| {
                host.counters.net_namespaces = Some(count);
                host.counters.removing_namespaces = Some(false);
            })
        };
        watch.take(namespaces(1_000, 1_700), now + TOLD_EVERY);
        assert_eq!(watch.take(idle(1_700), now + TOLD_EVERY), (vec![], false));
        // A few at a time.
        let mut at = now + TOLD_EVERY * 3 / 2;
        watch.take(namespaces(1_000, 1_700), at);
        for left in 1..=7 {
            at += Duration::from_millis(200);
            let told = watch.take(namespaces(1_000 - left * 9, 1_700), at);
            assert_eq!((names(&told), told.1), (vec![], false), "{left}");
        }
        for soon in [true, true, true, true, true, false] {
            at += Duration::from_millis(200);
            let told = watch.take(namespaces(928, 1_700), at);
            assert_eq!(told.1, soon);
            assert_eq!(names(&told), if soon { vec![] } else { vec!["namespaces"] });
        }
        // Another app's replicas come while ours go.
        watch.take(namespaces(1_000, 1_700), now + TOLD_EVERY * 2);
        assert!(watch.take(namespaces(900, 1_900), now + TOLD_EVERY * 2).1);
        assert_eq!(watch.take(namespaces(900, 2_100), now + TOLD_EVERY * 2), (vec![], false));
    }

    #[test]
    fn a_filter_in_the_way_is_told_before_anything_is_lost() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        let filter = |drops| {
            look(0, |host| {
                host.settings.insert("net.bridge.bridge-nf-call-iptables", 1);
                host.filter.drops_forwarded = Some(drops);
            })
        };
        assert!(names(&watch.take(filter(false), now)).is_empty());
        let told = watch.take(filter(true), now);
        assert_eq!(names(&told), ["docker-filter"]);
        assert!(told.0[0].told().ends_with("iptables -I FORWARD -i thr+ -o thr+ -j ACCEPT"), "{told:?}");
    }

    #[test]
    fn slower_starts_are_put_down_to_what_has_grown_along() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        let started = |present: u64, took: u64, mounts: u64| {
            let mut look = look(present, |host| host.mounts = Some(mounts));
            look.census.starts = present;
            look.census.took = Duration::from_millis(took);
            look
        };
        watch.take(started(0, 0, 20), now);
        assert!(names(&watch.take(started(100, 500, 120), now)).is_empty());
        assert!(names(&watch.take(started(200, 1_100, 220), now)).is_empty(), "hardly slower");
        assert_eq!(names(&watch.take(started(300, 4_000, 320), now)), ["mount-table"]);
        assert!(names(&watch.take(started(400, 9_000, 150), now + TOLD_EVERY)).is_empty(), "nothing grew");
    }

    #[test]
    fn a_look_costs_little() {
        let source = Source::live("/");
        let begin = Instant::now();
        (0..20).for_each(|_| drop(Host::pulse(&source).with_namespaces(&source)));
        // Far more than it takes, far less than a hundredth of a core would be.
        assert!(begin.elapsed() / 20 < LOOK_EVERY / 100, "{:?} a look", begin.elapsed() / 20);
    }
}
