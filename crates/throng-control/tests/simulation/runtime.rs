//! Replicas as state machines in virtual time: what a runtime is to a supervisor, with faults on order.

use crate::random::Random;
use std::collections::BTreeMap;
use std::time::Duration;
use throng_control::Time;
use throng_control::health::Question;
use throng_model::replica::Exit;

/// Service and ordinal.
pub type Key = (String, u32);

/// How a replica of one definition behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    Good,
    /// Its process ends soon after each start.
    Crashes,
    /// It cannot be started, by no retry.
    Broken,
    /// It runs, but its health check never succeeds.
    Sick,
    /// It ends well after a while, or badly.
    Works {
        fails_one_in: u64,
    },
    /// It runs, but hangs: its liveness check never succeeds.
    Hangs,
}

/// What is in the way while faults last, one in so many each time; 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub start_fails: u64,
    pub start_slow: u64,
    pub probe_fails: u64,
    pub stop_ignored: u64,
    pub remove_fails: u64,
}

/// What the runtime knows of a replica, which outlives the supervisor.
#[derive(Debug, Clone)]
pub struct Replica {
    pub config_hash: String,
    pub nature: Nature,
    pub generation: u64,
    pub state: State,
    /// It does not live any more, until it is started again.
    pub hung: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited(Exit),
}

/// Something that the runtime tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// `Err(permanent)`.
    Launched {
        key: Key,
        generation: u64,
        result: Result<(), bool>,
    },
    Exited {
        key: Key,
        generation: u64,
        exit: Exit,
    },
    Probed {
        key: Key,
        generation: u64,
        question: Question,
        success: bool,
    },
    /// A step that was to end it has ended; that it did is told apart.
    Ended {
        key: Key,
        generation: u64,
    },
    Retired {
        key: Key,
        generation: u64,
        well: bool,
    },
}

#[derive(Default)]
pub struct SimRuntime {
    pub replicas: BTreeMap<Key, Replica>,
    pub faults: Faults,
    /// What happens when, in the order of time and of asking.
    queue: BTreeMap<(Time, u64), Due>,
    asked: u64,
}

#[derive(Debug)]
enum Due {
    Start { key: Key, generation: u64, fails: Option<bool> },
    End { key: Key, generation: u64 },
    Done { key: Key, generation: u64, exit: Exit },
    Probe { key: Key, generation: u64, question: Question, fails: bool },
    Ended { key: Key, generation: u64 },
    Removed { key: Key, generation: u64, fails: bool },
}

const CRASH: Exit = Exit::Code { code: 1 };

impl SimRuntime {
    fn at(&mut self, time: Time, due: Due) {
        self.asked += 1;
        self.queue.insert((time, self.asked), due);
    }

    fn hit(one_in: u64, random: &mut Random) -> bool {
        one_in > 0 && random.one_in(one_in)
    }

    pub fn launch(&mut self, key: Key, made: Replica, now: Time, random: &mut Random) {
        let fails = match made.nature {
            Nature::Broken => Some(true),
            _ if Self::hit(self.faults.start_fails, random) => Some(false),
            _ => None,
        };
        let slow = Self::hit(self.faults.start_slow, random);
        let takes = Duration::from_millis(if slow { 20_000 } else { 20 + random.below(200) });
        let generation = made.generation;
        self.replicas.insert(key.clone(), Replica { state: State::Created, hung: false, ..made });
        self.at(now + takes, Due::Start { key, generation, fails });
    }

    pub fn probe(&mut self, key: Key, generation: u64, question: Question, now: Time, random: &mut Random) {
        // Liveness is what a replica says of itself: a check that fails by chance would end what is well.
        let fails = question != Question::Liveness && Self::hit(self.faults.probe_fails, random);
        let at = now + Duration::from_millis(5 + random.below(50));
        self.at(at, Due::Probe { key, generation, question, fails });
    }

    /// Asks a process to leave, and kills one that does not.
    pub fn end(&mut self, key: Key, generation: u64, now: Time, random: &mut Random) {
        let takes = Duration::from_millis(random.pick(&[10, 300, 10_000]));
        self.at(now + takes, Due::End { key: key.clone(), generation });
        self.at(now + takes + Duration::from_millis(random.below(2)), Due::Ended { key, generation });
    }

    /// A process goes on and answers nobody.
    pub fn hang(&mut self, key: &Key) {
        if let Some(replica) = self.replicas.get_mut(key) {
            replica.hung = replica.state == State::Running;
        }
    }

    pub fn retire(&mut self, key: Key, generation: u64, now: Time, random: &mut Random) {
        // One that ignores its stop signal is killed after its grace period.
        let ignored = Self::hit(self.faults.stop_ignored, random);
        let takes =
            if ignored { Duration::from_secs(10) } else { Duration::from_millis(10 + random.below(100)) };
        let fails = Self::hit(self.faults.remove_fails, random);
        // A step that failed rests before it says so.
        let takes = if fails { takes + Duration::from_secs(1) } else { takes };
        if let Some(replica) = self.replicas.get_mut(&key) {
            replica.generation = generation;
        }
        self.at(now + takes, Due::Removed { key, generation, fails });
    }

    /// A process ends without being asked.
    pub fn kill(&mut self, key: &Key, now: Time) {
        if let Some(replica) = self.replicas.get(key) {
            let generation = replica.generation;
            self.at(now, Due::End { key: key.clone(), generation });
        }
    }

    /// Steps are the supervisor's and die with it, wherever they are; processes go on.
    pub fn forget_steps(&mut self) {
        self.queue.retain(|_, due| matches!(due, Due::End { .. } | Due::Done { .. }));
    }

    pub fn next(&self) -> Option<Time> {
        self.queue.first_key_value().map(|((time, _), _)| *time)
    }

    /// All that has happened by now.
    pub fn take(&mut self, now: Time, random: &mut Random) -> Vec<Told> {
        let mut told = Vec::new();
        while self.next().is_some_and(|next| next <= now) {
            let Some(((at, _), due)) = self.queue.pop_first() else { break };
            told.extend(self.happens(at, due, random));
        }
        told
    }

    fn happens(&mut self, at: Time, due: Due, random: &mut Random) -> Option<Told> {
        match due {
            Due::Start { key, generation, fails } => {
                let replica =
                    self.replicas.get_mut(&key).filter(|replica| replica.generation == generation)?;
                if let Some(permanent) = fails {
                    replica.state = State::Exited(Exit::Unknown);
                    return Some(Told::Launched { key, generation, result: Err(permanent) });
                }
                replica.state = State::Running;
                if let Nature::Works { fails_one_in } = replica.nature {
                    let code = i32::from(random.one_in(fails_one_in));
                    let takes = Duration::from_millis(100 + random.below(5_000));
                    let exit = Exit::Code { code };
                    self.at(at + takes, Due::Done { key: key.clone(), generation, exit });
                } else if replica.nature == Nature::Crashes {
                    let lives = Duration::from_millis(100 + random.below(3_000));
                    self.at(at + lives, Due::End { key: key.clone(), generation });
                }
                Some(Told::Launched { key, generation, result: Ok(()) })
            }
            Due::Done { key, generation, exit } => {
                let running = |replica: &&mut Replica| {
                    replica.generation == generation && replica.state == State::Running
                };
                let replica = self.replicas.get_mut(&key).filter(running)?;
                replica.state = State::Exited(exit);
                Some(Told::Exited { key, generation, exit })
            }
            Due::End { key, generation } => {
                let running = |replica: &&mut Replica| {
                    replica.generation == generation && replica.state == State::Running
                };
                let replica = self.replicas.get_mut(&key).filter(running)?;
                replica.state = State::Exited(CRASH);
                Some(Told::Exited { key, generation, exit: CRASH })
            }
            Due::Probe { key, generation, question, fails } => {
                let ill = if question == Question::Liveness { Nature::Hangs } else { Nature::Sick };
                let well = self.replicas.get(&key).is_some_and(|replica| {
                    replica.state == State::Running && replica.nature != ill && !fails && !replica.hung
                });
                Some(Told::Probed { key, generation, question, success: well })
            }
            Due::Ended { key, generation } => Some(Told::Ended { key, generation }),
            Due::Removed { key, generation, fails } => {
                let replica = self.replicas.get_mut(&key)?;
                if fails {
                    replica.state = State::Exited(CRASH);
                    return Some(Told::Retired { key, generation, well: false });
                }
                self.replicas.remove(&key);
                Some(Told::Retired { key, generation, well: true })
            }
        }
    }
}
