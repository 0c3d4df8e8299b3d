//! What the daemon says of a container's state, in a runtime's words.

use bollard::models::{ContainerState, ContainerStateStatusEnum as Status};
use std::time::SystemTime;
use throng_model::replica::{Exit, ReplicaState};

/// The largest signal number (signal(7)).
const SIGNALS: i64 = 64;
const KILLED: i64 = 128 + 9;

/// How a first process ended. Docker tells signals as 128 and their number, as a shell does, so a program that itself
/// ends with such a code looks as if a signal had ended it.
pub fn exit(code: i64, out_of_memory: bool) -> Exit {
    match code {
        KILLED if out_of_memory => Exit::OutOfMemory,
        129..=192 if code - 128 <= SIGNALS => Exit::Signal { signal: (code - 128) as i32 },
        // Of an exit status the kernel keeps one byte (wait(2)).
        _ => i32::try_from(code).map_or(Exit::Unknown, |code| Exit::Code { code }),
    }
}

/// Killed in a way that may have been for want of memory; the daemon may say so only a moment later.
pub fn maybe_out_of_memory(state: &ContainerState) -> bool {
    state.exit_code == Some(KILLED) && state.oom_killed != Some(true)
}

pub fn state(state: &ContainerState) -> ReplicaState {
    let time = |text: &Option<String>| text.as_deref().and_then(time).unwrap_or_else(SystemTime::now);
    match state.status {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING) => ReplicaState::Running {
            pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            started_at: time(&state.started_at),
        },
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) if started(state) => ReplicaState::Exited {
            exit: exit(state.exit_code.unwrap_or(-1), state.oom_killed == Some(true)),
            finished_at: time(&state.finished_at),
        },
        _ => ReplicaState::Created,
    }
}

/// Whether it has ever run: the daemon's zero time is the year 1.
fn started(state: &ContainerState) -> bool {
    state.started_at.as_deref().is_some_and(|at| !at.starts_with("0001-"))
}

fn time(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_ends() {
        for (code, out_of_memory, expected) in [
            (0, false, Exit::Code { code: 0 }),
            (7, true, Exit::Code { code: 7 }),
            (128, false, Exit::Code { code: 128 }),
            (143, false, Exit::Signal { signal: 15 }),
            (137, false, Exit::Signal { signal: 9 }),
            (137, true, Exit::OutOfMemory),
            (192, false, Exit::Signal { signal: 64 }),
            (193, false, Exit::Code { code: 193 }),
            (255, false, Exit::Code { code: 255 }),
            (i64::MAX, false, Exit::Unknown),
        ] {
            assert_eq!(exit(code, out_of_memory), expected, "{code}");
        }
    }

    #[test]
    fn a_container_that_never_ran_is_created() {
        let zero = || Some("0001-01-01T00:00:00Z".to_owned());
        let made = ContainerState { status: Some(Status::CREATED), started_at: zero(), ..Default::default() };
        assert_eq!(state(&made), ReplicaState::Created);
        let failed = ContainerState { status: Some(Status::EXITED), exit_code: Some(127), ..made };
        assert_eq!(state(&failed), ReplicaState::Created);
        let ended = ContainerState {
            started_at: Some("2024-05-06T07:08:09.123456789Z".into()),
            finished_at: Some("2024-05-06T07:08:10Z".into()),
            ..failed
        };
        let ReplicaState::Exited { exit, finished_at } = state(&ended) else { panic!("it has run") };
        assert_eq!(exit, Exit::Code { code: 127 });
        assert_eq!(
            finished_at.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs(),
            1_714_979_290
        );
    }
}
