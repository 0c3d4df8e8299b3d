//! The system calls that a replica may make: the set that Docker's default profile allows to a container with the
//! default capabilities (<https://docs.docker.com/engine/security/seccomp/>). Others fail with `EPERM`, `clone3` with
//! `ENOSYS` so that C libraries fall back to `clone`, whose flags can be examined.
//!
//! Programs of another architecture than the host's own (32-bit ones on a 64-bit host) are killed by the filter.
//!
//! The program is a binary search over ranges of numbers, ten steps for any call. Each start pays for its form: to know
//! which calls need never be asked about, the kernel runs a program for every number there is (`seccomp_cache_prepare`,
//! with interrupts off), then compiles it. As a chain of comparisons, which libraries make, that was a fifth of the CPU
//! time of a start.

use crate::sys::Filter;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Flags of `clone` that make namespaces: mount, cgroup, UTS, IPC, user, PID and network.
const NAMESPACE_FLAGS: u32 = 0x7E02_0000;
/// Linux, with or without a 16-bit uname and without address randomisation, and the query.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];
/// Families of sockets that are not allowed: their kernel code is large and knows no namespaces.
const FAMILIES: [u32; 2] = [libc::AF_VSOCK as u32, libc::AF_ALG as u32];

/// `AUDIT_ARCH_…` of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE_MARK: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE_MARK: u32 = 0xC000_00B7;

const DENIED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const MISSING: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Always(u32),
    /// Allowed unless its first argument has one of these bits.
    Without(u32),
    /// Allowed if its first argument is one of these.
    OneOf(&'static [u32]),
    /// Allowed unless its first argument, of 32 bits, is one of these.
    NoneOf(&'static [u32]),
}

/// The filter for a process with these capabilities; `None` if it does not fit the instructions of the kernel, which a
/// test rules out.
pub fn filter(capabilities: u64) -> Option<Arc<Filter>> {
    let mut program = vec![
        statement(LOAD, ARCHITECTURE_AT),
        jump(EQUAL, ARCHITECTURE_MARK, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, NUMBER_AT),
    ];
    program.extend(search(&ranges(&verdicts(capabilities)))?);
    Some(Arc::new(Filter(program)))
}

fn verdicts(capabilities: u64) -> BTreeMap<u32, Verdict> {
    let allowed = COMMON.iter().chain(RECENT).chain(ARCHITECTURE);
    let always = Verdict::Always(libc::SECCOMP_RET_ALLOW);
    let mut verdicts: BTreeMap<u32, Verdict> = allowed.map(|&number| (number as u32, always)).collect();
    verdicts.extend([
        (libc::SYS_clone as u32, Verdict::Without(NAMESPACE_FLAGS)),
        (libc::SYS_clone3 as u32, Verdict::Always(MISSING)),
        (libc::SYS_personality as u32, Verdict::OneOf(&PERSONALITIES)),
        (libc::SYS_socket as u32, Verdict::NoneOf(&FAMILIES)),
    ]);
    for (capability, calls) in PRIVILEGED {
        if capabilities & (1 << capability) != 0 {
            verdicts.extend(calls.iter().map(|&number| (number as u32, always)));
        }
    }
    verdicts
}

/// Numbers from which on a verdict holds, until the next one; the first is 0.
fn ranges(verdicts: &BTreeMap<u32, Verdict>) -> Vec<(u32, Verdict)> {
    let mut ranges = vec![(0, Verdict::Always(DENIED))];
    let mut from = |number: u32, verdict: Verdict| match ranges.last_mut() {
        Some(last) if last.0 == number => last.1 = verdict,
        Some(last) if last.1 == verdict => {}
        _ => ranges.push((number, verdict)),
    };
    let mut next = 0;
    for (&number, &verdict) in verdicts {
        if number > next {
            from(next, Verdict::Always(DENIED));
        }
        from(number, verdict);
        next = number + 1;
    }
    from(next, Verdict::Always(DENIED));
    ranges
}

fn search(ranges: &[(u32, Verdict)]) -> Option<Vec<libc::sock_filter>> {
    if let [(_, verdict)] = ranges {
        return decide(*verdict);
    }
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let (less, more) = (search(below)?, search(above)?);
    let middle = jump(AT_LEAST, above.first()?.0, u8::try_from(less.len()).ok()?, 0);
    Some([vec![middle], less, more].concat())
}

/// The end of a search: the number is not needed any more.
fn decide(verdict: Verdict) -> Option<Vec<libc::sock_filter>> {
    let (allow, deny) = (statement(RETURN, libc::SECCOMP_RET_ALLOW), statement(RETURN, DENIED));
    let low = statement(LOAD, ARGUMENT_LOW_AT);
    let compare = |values: &[u32]| -> Option<Vec<_>> {
        let one = |(place, &value): (usize, &u32)| {
            // Over the comparisons that are left, and the return behind them.
            Some(jump(EQUAL, value, u8::try_from(values.len() - place).ok()?, 0))
        };
        values.iter().enumerate().map(one).collect()
    };
    Some(match verdict {
        Verdict::Always(result) => vec![statement(RETURN, result)],
        Verdict::Without(bits) => vec![low, jump(ANY_BIT, bits, 1, 0), allow, deny],
        Verdict::OneOf(values) => {
            // The kernel takes the argument for a word of 64 bits, so the upper ones count.
            let upper = vec![statement(LOAD, ARGUMENT_HIGH_AT), jump(EQUAL, 0, 1, 0), deny, low];
            [upper, compare(values)?, vec![deny, allow]].concat()
        }
        Verdict::NoneOf(values) => [vec![low], compare(values)?, vec![allow, deny]].concat(),
    })
}

// Offsets in `struct seccomp_data` of linux/seccomp.h; the first argument is a word of 64 bits.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENT_LOW_AT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
const ARGUMENT_HIGH_AT: u32 = if cfg!(target_endian = "little") { 20 } else { 16 };

// Instructions of linux/bpf_common.h.
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

fn statement(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

/// `jt` and `jf` are the numbers of instructions to pass over.
fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

#[rustfmt::skip] // one family of calls to a paragraph
const COMMON: &[i64] = calls! {
    SYS_accept SYS_accept4 SYS_bind SYS_connect SYS_getpeername SYS_getsockname SYS_getsockopt SYS_listen
    SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setsockopt SYS_shutdown
    SYS_socketpair

    SYS_adjtimex SYS_clock_adjtime SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_getitimer
    SYS_gettimeofday SYS_nanosleep SYS_setitimer SYS_timer_create SYS_timer_delete SYS_timer_getoverrun
    SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times

    SYS_brk SYS_get_mempolicy SYS_madvise SYS_mbind SYS_membarrier
    SYS_memfd_create SYS_memfd_secret SYS_mincore SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect
    SYS_mremap SYS_mseal SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_pkey_alloc SYS_pkey_free
    SYS_pkey_mprotect SYS_process_madvise SYS_process_mrelease SYS_process_vm_readv SYS_process_vm_writev
    SYS_remap_file_pages SYS_set_mempolicy SYS_set_mempolicy_home_node

    SYS_capget SYS_capset SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getresgid SYS_getresuid SYS_getuid
    SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid
    SYS_setuid SYS_chroot

    SYS_chdir SYS_close SYS_close_range SYS_copy_file_range SYS_dup SYS_dup3 SYS_faccessat SYS_faccessat2
    SYS_fadvise64 SYS_fallocate SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_fcntl
    SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs
    SYS_fsync SYS_ftruncate SYS_getcwd SYS_getdents64 SYS_getxattr SYS_ioctl SYS_lgetxattr SYS_linkat SYS_listxattr
    SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_mkdirat SYS_mknodat SYS_name_to_handle_at
    SYS_newfstatat SYS_openat SYS_openat2 SYS_pipe2 SYS_pread64 SYS_preadv SYS_preadv2 SYS_pwrite64 SYS_pwritev
    SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_removexattr SYS_renameat SYS_renameat2
    SYS_sendfile SYS_setxattr SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_sync_file_range SYS_syncfs
    SYS_tee SYS_truncate SYS_umask SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_write SYS_writev

    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_fanotify_mark
    SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_ppoll SYS_pselect6 SYS_signalfd4

    SYS_io_cancel SYS_io_destroy SYS_io_getevents SYS_io_setup SYS_io_submit SYS_ioprio_get
    SYS_ioprio_set

    SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_get_robust_list SYS_getcpu SYS_getpgid SYS_getpid
    SYS_getppid SYS_getpriority SYS_getrandom SYS_getrlimit SYS_getrusage SYS_getsid SYS_gettid SYS_kill
    SYS_pidfd_getfd SYS_pidfd_open SYS_pidfd_send_signal SYS_prctl SYS_prlimit64 SYS_ptrace SYS_restart_syscall
    SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn
    SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler
    SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler
    SYS_sched_yield SYS_seccomp SYS_set_robust_list SYS_set_tid_address SYS_setpgid SYS_setpriority SYS_setrlimit
    SYS_setsid SYS_sigaltstack SYS_sysinfo SYS_tgkill SYS_tkill SYS_uname SYS_wait4 SYS_waitid

    SYS_futex SYS_futex_waitv SYS_landlock_add_rule
    SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_mq_getsetattr SYS_mq_notify SYS_mq_open
    SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_semctl
    SYS_semget SYS_semop SYS_semtimedop SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget

    // Answered with ENOSYS, see above.
    SYS_clone3
};

/// Calls that Docker's profile allows with a capability beyond the default ones, by its number.
const PRIVILEGED: [(u32, &[i64]); 12] = [
    // CAP_DAC_READ_SEARCH
    (2, calls! { SYS_open_by_handle_at }),
    // CAP_SYS_MODULE
    (16, calls! { SYS_delete_module SYS_init_module SYS_finit_module }),
    // CAP_SYS_RAWIO
    (17, PORTS),
    // CAP_SYS_PTRACE
    (19, calls! { SYS_kcmp }),
    // CAP_SYS_PACCT
    (20, calls! { SYS_acct }),
    // CAP_SYS_ADMIN
    (
        21,
        calls! {
            SYS_bpf SYS_clone SYS_clone3 SYS_fanotify_init SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_mount
            SYS_mount_setattr SYS_move_mount SYS_open_tree SYS_perf_event_open SYS_quotactl SYS_quotactl_fd
            SYS_setdomainname SYS_sethostname SYS_setns SYS_syslog SYS_umount2 SYS_unshare
        },
    ),
    // CAP_SYS_BOOT
    (22, calls! { SYS_reboot }),
    // CAP_SYS_TIME
    (25, calls! { SYS_settimeofday SYS_clock_settime }),
    // CAP_SYS_TTY_CONFIG
    (26, calls! { SYS_vhangup }),
    // CAP_SYSLOG
    (34, calls! { SYS_syslog }),
    // CAP_PERFMON
    (38, calls! { SYS_perf_event_open }),
    // CAP_BPF
    (39, calls! { SYS_bpf }),
];

#[cfg(target_arch = "x86_64")]
const PORTS: &[i64] = calls! { SYS_iopl SYS_ioperm };
#[cfg(target_arch = "aarch64")]
const PORTS: &[i64] = &[];

/// Calls that the `libc` crate has no names for yet; from the kernel's tables, the same on all architectures.
const RECENT: &[i64] = &[
    451, // cachestat
    453, // map_shadow_stack
    454, // futex_wake
    455, // futex_wait
    456, // futex_requeue
    IO_PGETEVENTS,
];

#[cfg(target_arch = "x86_64")]
const IO_PGETEVENTS: i64 = 333;
#[cfg(target_arch = "aarch64")]
const IO_PGETEVENTS: i64 = 292;

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip] // as above
const ARCHITECTURE: &[i64] = calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat SYS_get_thread_area SYS_getdents SYS_getpgrp
    SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open SYS_pause SYS_pipe
    SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_set_thread_area SYS_signalfd SYS_stat SYS_symlink
    SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
};

#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &[i64] = &[];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::DEFAULT_CAPABILITIES;
    use proptest::prelude::*;
    use seccompiler::{
        SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Compare, SeccompCondition as Condition,
        SeccompFilter, SeccompRule as Rule, TargetArch,
    };

    /// The same rules as a library's chains: what the search must agree with.
    fn chains() -> Vec<Filter> {
        let only = |argument, operator, value| {
            Rule::new(vec![Condition::new(argument, Width::Qword, operator, value).unwrap()]).unwrap()
        };
        let family = |value: u32| Condition::new(0, Width::Dword, Compare::Ne, value.into()).unwrap();
        let mut rules: BTreeMap<i64, Vec<Rule>> =
            COMMON.iter().chain(RECENT).chain(ARCHITECTURE).map(|&number| (number, vec![])).collect();
        let flags = Compare::MaskedEq(NAMESPACE_FLAGS.into());
        rules.insert(libc::SYS_clone, vec![only(0, flags, 0)]);
        let personalities = PERSONALITIES.iter().map(|&p| only(0, Compare::Eq, p.into()));
        rules.insert(libc::SYS_personality, personalities.collect());
        let families = FAMILIES.iter().map(|&value| family(value)).collect();
        rules.insert(libc::SYS_socket, vec![Rule::new(families).unwrap()]);
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let errno = |number: i32| SeccompAction::Errno(number as u32);
        let main = SeccompFilter::new(rules, errno(libc::EPERM), SeccompAction::Allow, arch).unwrap();
        let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
        let missing = SeccompFilter::new(clone3, SeccompAction::Allow, errno(libc::ENOSYS), arch).unwrap();
        let native = |filter: SeccompFilter| {
            let program = seccompiler::BpfProgram::try_from(filter).unwrap();
            let same = |i: &seccompiler::sock_filter| jump(i.code.into(), i.k, i.jt, i.jf);
            Filter(program.iter().map(same).collect())
        };
        vec![native(missing), native(main)]
    }

    /// What the kernel would do: the result, and the steps to it.
    fn run(filter: &Filter, number: u32, architecture: u32, argument: u64) -> (u32, usize) {
        let (mut at, mut value, mut steps) = (0, 0u32, 0);
        loop {
            let i = filter.0[at];
            (at, steps) = (at + 1, steps + 1);
            let holds = match u32::from(i.code) {
                LOAD => {
                    value = match i.k {
                        NUMBER_AT => number,
                        ARCHITECTURE_AT => architecture,
                        ARGUMENT_LOW_AT => argument as u32,
                        ARGUMENT_HIGH_AT => (argument >> 32) as u32,
                        other => panic!("a load from {other}"),
                    };
                    continue;
                }
                RETURN => return (i.k, steps),
                EQUAL => value == i.k,
                AT_LEAST => value >= i.k,
                ANY_BIT => value & i.k != 0,
                0x05 => {
                    at += i.k as usize;
                    continue;
                }
                0x54 => {
                    value &= i.k;
                    continue;
                }
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if holds { i.jt } else { i.jf });
        }
    }

    /// Of several filters the kernel takes the result of the highest precedence: here, any but to allow.
    fn together(filters: &[Filter], number: u32, architecture: u32, argument: u64) -> u32 {
        let results = filters.iter().map(|filter| run(filter, number, architecture, argument).0);
        results.reduce(|first, next| if first == libc::SECCOMP_RET_ALLOW { next } else { first }).unwrap()
    }

    #[test]
    fn every_call_is_decided_as_by_a_chain_of_comparisons() {
        let (search, chains) = (filter(DEFAULT_CAPABILITIES).unwrap(), chains());
        let arguments = PERSONALITIES.iter().chain(&FAMILIES).map(|&value| u64::from(value));
        let flags = [1 << 17, NAMESPACE_FLAGS.into(), 1 << 32, 0x1_0000_0008, 17, u64::MAX];
        let arguments: Vec<u64> = arguments.chain(flags).collect();
        for number in (0..1000).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            for &argument in &arguments {
                for architecture in [ARCHITECTURE_MARK, 0x4000_0003] {
                    let expected = together(&chains, number, architecture, argument);
                    let result = run(&search, number, architecture, argument).0;
                    assert_eq!(result, expected, "call {number} of {architecture:#x} with {argument:#x}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_call_is_decided_as_by_a_chain_of_comparisons(number in any::<u32>(), argument in any::<u64>()) {
            let (search, chains) = (filter(DEFAULT_CAPABILITIES).unwrap(), chains());
            for number in [number, number % 512] {
                prop_assert_eq!(
                    run(&search, number, ARCHITECTURE_MARK, argument).0,
                    together(&chains, number, ARCHITECTURE_MARK, argument)
                );
            }
        }
    }

    #[test]
    fn every_call_is_decided_in_few_steps() {
        let search = filter(DEFAULT_CAPABILITIES).unwrap();
        let most = (0..512).map(|number| run(&search, number, ARCHITECTURE_MARK, 0).1).max().unwrap();
        assert!(most <= 20, "{most} steps");
        assert!(search.0.len() < 512, "{} instructions", search.0.len());
    }

    #[test]
    fn a_capability_allows_its_own_calls_and_no_others() {
        for (capability, calls) in PRIVILEGED {
            let with = verdicts(DEFAULT_CAPABILITIES | 1 << capability);
            for number in 0..1000 {
                let (before, after) =
                    (verdicts(DEFAULT_CAPABILITIES).get(&number).copied(), with.get(&number).copied());
                if calls.contains(&i64::from(number)) {
                    assert_eq!(
                        after,
                        Some(Verdict::Always(libc::SECCOMP_RET_ALLOW)),
                        "{capability}: {number}"
                    );
                } else {
                    assert_eq!(after, before, "{capability}: {number}");
                }
            }
        }
        assert!(filter(u64::MAX).is_some_and(|filter| filter.0.len() < 512));
    }

    #[test]
    fn dangerous_calls_are_not_allowed() {
        let verdicts = verdicts(DEFAULT_CAPABILITIES);
        for number in [
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_open_by_handle_at,
            libc::SYS_io_uring_setup,
        ] {
            assert!(!verdicts.contains_key(&(number as u32)), "system call {number}");
        }
    }
}
