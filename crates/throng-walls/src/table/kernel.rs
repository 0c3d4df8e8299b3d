//! Rows about processes, descriptors, control groups, namespaces, memory and CPU.

use super::{Wall, WallId};

pub const PROCESS_IDS: Wall = Wall {
    id: WallId::ProcessIds,
    name: "process-ids",
    title: "process ids",
    seen: &[
        "pthread_create failed: Resource temporarily unavailable",
        "fork: retry: Resource temporarily unavailable",
        "fork: EAGAIN",
        "cannot start shop/web-1: cannot make a process: Resource temporarily unavailable (os error 11)",
    ],
    silent: "",
    limit: "`kernel.pid_max` and `kernel.threads-max` on the host, `RLIMIT_NPROC` for each ordinary user",
    why: "every thread has a number of its own, and a replica's have one more on the host than inside it",
    here: "no task beyond those of the program itself: no shim, no helper",
    moves: "higher limits",
    reference: "<https://github.com/moby/moby/issues/24026>; proc_sys_kernel(5), getrlimit(2)",
};

pub const PIDS_CGROUP: Wall = Wall {
    id: WallId::PidsCgroup,
    name: "pids-cgroup",
    title: "tasks of a control group",
    seen: &["cgroup: fork rejected by pids controller in /system.slice/throng.service"],
    silent: "",
    limit: "`pids.max` of any group above a replica's (systemd: TasksMax)",
    why: "a limit of an ancestor counts everything below it; systemd gives services and sessions one by default",
    here: "replicas have groups at the top of the tree, or in the user's delegated part of it",
    moves: "a higher limit of that group",
    reference: "<https://github.com/moby/moby/issues/20096>; Documentation/admin-guide/cgroup-v2",
};

pub const SESSION_KEYRINGS: Wall = Wall {
    id: WallId::SessionKeyrings,
    name: "session-keyrings",
    title: "session keyrings",
    seen: &[
        "unable to create session key: disk quota exceeded",
        "add_key: Disk quota exceeded",
        "keyctl_join_session_keyring: Disk quota exceeded",
    ],
    silent: "",
    limit: "`kernel.keys.maxkeys` keys and `kernel.keys.maxbytes` bytes for each user but root",
    why: "runc makes a session keyring for each container, all of them the same user's",
    here: "the engine makes no keyrings, and programs in replicas may not (Docker's default system calls)",
    moves: "raise both, or make no session keyrings",
    reference: "<https://github.com/opencontainers/runc/issues/726>; keyrings(7)",
};

pub const INOTIFY: Wall = Wall {
    id: WallId::Inotify,
    name: "inotify",
    title: "inotify instances",
    seen: &[
        "failed to create fsnotify watcher: too many open files",
        "inotify_init1: Too many open files (os error 24)",
        "inotify_add_watch: no space left on device",
        "System limit for number of file watchers reached",
    ],
    silent: "",
    limit: "`fs.inotify.max_user_instances` (128 by default) and `max_user_watches` for each user",
    why: "replicas that run as the same user share its instances, whatever their namespaces",
    here: "the engine uses none; programs that watch files do",
    moves: "higher limits",
    reference: "<https://github.com/containerd/containerd/issues/10468>; inotify(7)",
};

pub const DESCRIPTORS: Wall = Wall {
    id: WallId::Descriptors,
    name: "descriptors",
    title: "file descriptors",
    seen: &[
        "too many open files",
        "cannot start shop/web-1: cannot open its log: Too many open files (os error 24)",
        "accept: Too many open files in system (os error 23)",
    ],
    silent: "",
    limit: "the hard limit of open files of the supervisor, `fs.nr_open`, and `fs.file-max` for the host",
    why: "the supervisor holds a descriptor for each replica, and all processes' files together have a limit too",
    here: "the soft limit is raised to the hard one at the start; each replica costs one descriptor",
    moves: "a higher hard limit for the shell or service that starts it",
    reference: "<https://github.com/docker/compose/issues/3033>; getrlimit(2), proc_sys_fs(5)",
};

pub const MEMORY_CGROUP_IDS: Wall = Wall {
    id: WallId::MemoryCgroupIds,
    name: "memory-cgroup-ids",
    title: "memory group ids",
    seen: &[
        "mkdir /sys/fs/cgroup/memory/docker/1234: no space left on device",
        "cannot limit shop/web-1: No space left on device (os error 28)",
    ],
    silent: "",
    limit: "65,535 memory groups, compiled into the kernel",
    why: "an id has 16 bits, and a removed group keeps its own while pages or kernel objects are charged to it",
    here: "on version 1 only replicas with a memory limit have such a group",
    moves: "let go of what is charged to removed groups: `sync; echo 3 > /proc/sys/vm/drop_caches`",
    reference: "<https://github.com/moby/moby/issues/29638>; mm/memcontrol.c",
};

pub const CGROUP_DESCENDANTS: Wall = Wall {
    id: WallId::CgroupDescendants,
    name: "cgroup-descendants",
    title: "control group descendants",
    seen: &[
        "mkdir: cannot create directory '/sys/fs/cgroup/a/b': Resource temporarily unavailable",
        "cannot limit shop/web-1: Resource temporarily unavailable (os error 11)",
    ],
    silent: "",
    limit: "`cgroup.max.descendants` of any group above a replica's, on version 2",
    why: "who delegates a part of the tree may limit what is made in it; it is unlimited by default",
    here: "one group for each replica",
    moves: "a higher limit of that group",
    reference: "Documentation/admin-guide/cgroup-v2",
};

pub const CGROUP_APPLY: Wall = Wall {
    id: WallId::CgroupApply,
    name: "cgroup-apply",
    title: "groups made by systemd",
    seen: &[
        "unable to apply cgroup configuration",
        "Timeout waiting for systemd to create docker-1234.scope",
    ],
    silent: "",
    limit: "systemd's own speed: some 1,200 containers, or 360 at once, run into its 30 s",
    why: "with the systemd driver each container is a unit, asked for over D-Bus",
    here: "groups are made in the file system itself; systemd is not asked",
    moves: "the cgroupfs driver, in a delegated part of the tree",
    reference: "<https://github.com/opencontainers/runc/issues/2614>",
};

pub const NAMESPACES: Wall = Wall {
    id: WallId::Namespaces,
    name: "namespaces",
    title: "namespaces",
    seen: &[
        "cannot start shop/web-1: cannot make a process: No space left on device (os error 28)",
        "unshare: unshare failed: No space left on device",
    ],
    silent: "",
    limit: "`user.max_net_namespaces` and its kin for each user; and time: the kernel makes and removes network \
            namespaces one after another",
    why: "a network namespace is removed by one worker of the kernel, in batches, long after its last process has ended",
    here: "interfaces of a network are removed all at once, before its namespaces; a removal that lasts is told by \
           `throng events`, where the kernel's own threads are in sight: not inside a container",
    moves: "a higher limit; smaller steps down",
    reference: "namespaces(7); <https://www.spinics.net/lists/netdev/msg132304.html>",
};

pub const MEMORY: Wall = Wall {
    id: WallId::Memory,
    name: "memory",
    title: "memory",
    seen: &[
        "cannot start shop/web-1: cannot make a process: Cannot allocate memory (os error 12)",
        "fork: Cannot allocate memory",
        "Memory cgroup out of memory: Killed process 1234 (web)",
        "Out of memory: Killed process 1234 (web)",
    ],
    silent: "",
    limit: "`MemAvailable`, and the memory limit of any group above a replica's",
    why: "programs, and 0.8 MB of the kernel's and the engine's own for each replica",
    here: "images and read-only files are shared; replicas are killed before their supervisor",
    moves: "fewer or smaller replicas, more memory",
    reference: "proc_meminfo(5); Documentation/admin-guide/cgroup-v2",
};

pub const CPU: Wall = Wall {
    id: WallId::Cpu,
    name: "cpu",
    title: "CPU",
    seen: &[],
    silent: "everything still works, but waits: latencies grow, and the pressure of CPU rises",
    limit: "the cores of this host; `/proc/pressure/cpu` counts the waiting",
    why: "what replicas do at once shares the cores",
    here: "starts come in batches that let the host settle; health checks get a fifth of it",
    moves: "less load, cheaper health checks, more cores",
    reference: "Documentation/accounting/psi",
};
