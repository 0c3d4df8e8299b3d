//! The system calls that a replica may make: the set that Docker's default profile allows to a container with the
//! default capabilities (<https://docs.docker.com/engine/security/seccomp/>). Others fail with `EPERM`, `clone3` with
//! `ENOSYS` so that C libraries fall back to `clone`, whose flags can be examined.
//!
//! Programs of another architecture than the host's own (32-bit ones on a 64-bit host) are killed by the filter.

use crate::sys::Filter;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Compare,
    SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule, TargetArch,
};
use std::collections::BTreeMap;
use std::sync::Arc;

type Outcome<T> = Result<T, seccompiler::BackendError>;

/// Flags of `clone` that make namespaces: mount, cgroup, UTS, IPC, user, PID and network.
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;
/// Linux, with or without a 16-bit uname and without address randomisation, and the query.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// The filters in the order in which they are to be installed.
pub fn filters() -> Outcome<Vec<Arc<Filter>>> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let main = SeccompFilter::new(rules()?, denied, SeccompAction::Allow, arch)?;
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let fallback = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, vec![])]),
        SeccompAction::Allow,
        missing,
        arch,
    )?;
    [fallback, main].into_iter().map(|filter| Ok(Arc::new(native(filter.try_into()?)))).collect()
}

fn native(program: BpfProgram) -> Filter {
    Filter(program.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect())
}

fn rules() -> Outcome<BTreeMap<i64, Vec<Rule>>> {
    let mut rules: BTreeMap<i64, Vec<Rule>> =
        COMMON.iter().chain(RECENT).chain(ARCHITECTURE).map(|&number| (number, vec![])).collect();
    let only =
        |argument, operator, value| Rule::new(vec![Condition::new(argument, Width::Qword, operator, value)?]);
    rules.insert(libc::SYS_clone, vec![only(0, Compare::MaskedEq(NAMESPACE_FLAGS), 0)?]);
    rules.insert(
        libc::SYS_personality,
        PERSONALITIES.iter().map(|&p| only(0, Compare::Eq, p)).collect::<Outcome<_>>()?,
    );
    let family = |value: i32| Condition::new(0, Width::Dword, Compare::Ne, value as u64);
    rules.insert(libc::SYS_socket, vec![Rule::new(vec![family(libc::AF_VSOCK)?, family(libc::AF_ALG)?])?]);
    Ok(rules)
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

    // Permitted here and answered with ENOSYS by the other filter.
    SYS_clone3
};

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

    #[test]
    fn the_filters_compile_and_fit_the_kernel() {
        let filters = filters().unwrap();
        assert_eq!(filters.len(), 2);
        for filter in filters {
            assert!(filter.0.len() < 4096, "{} instructions; the kernel takes 4,096", filter.0.len());
        }
    }

    #[test]
    fn dangerous_calls_are_not_allowed() {
        let rules = rules().unwrap();
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
            assert!(!rules.contains_key(&number), "system call {number}");
        }
    }
}
