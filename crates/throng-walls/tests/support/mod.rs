//! A host on paper: copies of the files that a check reads.
#![allow(dead_code)] // each test file uses a part of it

use std::path::Path;
use throng_walls::{Host, Source};

/// A tree of /proc and /sys that is removed when dropped.
pub struct Paper {
    folder: tempfile::TempDir,
}

impl Paper {
    /// A common machine with 2 cores, 24 GiB and Debian's default settings, root, version 1 of control groups.
    pub fn host() -> Paper {
        let paper = Paper { folder: tempfile::tempdir().expect("a folder") };
        for (setting, value) in [
            ("fs.file-max", "2466170"),
            ("fs.inotify.max_user_instances", "128"),
            ("user.max_inotify_instances", "128"),
            ("fs.mount-max", "100000"),
            ("fs.nr_open", "1048576"),
            ("kernel.pid_max", "32768"),
            ("kernel.threads-max", "192730"),
            ("kernel.keys.maxkeys", "200"),
            ("kernel.osrelease", "6.1.0-18-amd64"),
            ("net.core.netdev_max_backlog", "1000"),
            ("net.ipv4.ip_local_port_range", "32768\t60999"),
            ("net.ipv4.neigh.default.gc_thresh1", "128"),
            ("net.ipv4.neigh.default.gc_thresh2", "512"),
            ("net.ipv4.neigh.default.gc_thresh3", "1024"),
            ("user.max_net_namespaces", "96365"),
            ("user.max_mnt_namespaces", "96365"),
            ("user.max_pid_namespaces", "96365"),
            ("user.max_ipc_namespaces", "96365"),
            ("user.max_uts_namespaces", "96365"),
        ] {
            paper.set(setting, value);
        }
        paper.write("proc/sys/fs/file-nr", "2000\t0\t2466170\n");
        paper.write("proc/loadavg", "0.20 0.18 0.12 5/200 11206\n");
        paper.write("proc/meminfo", "MemTotal: 24684000 kB\nMemAvailable: 20000000 kB\n");
        paper.write("proc/self/status", "Name:\ta\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n");
        paper.limits(1_048_576, 96_365);
        paper.write("proc/self/cgroup", "8:pids:/\n4:memory:/\n0::/\n");
        paper.mounts(20);
        paper.write("proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t14\t1\n");
        paper.write("sys/devices/system/cpu/online", "0-1\n");
        paper.write("sys/fs/cgroup/pids/tasks", "");
        paper.write("sys/fs/cgroup/memory/tasks", "");
        paper
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    pub fn set(&self, setting: &str, value: &str) {
        self.write(&format!("proc/sys/{}", setting.replace('.', "/")), &format!("{value}\n"));
    }

    pub fn setting(&self, setting: &str) -> String {
        let path = self.folder.path().join("proc/sys").join(setting.replace('.', "/"));
        std::fs::read_to_string(path).expect("a setting").trim().to_owned()
    }

    pub fn limits(&self, files: u64, processes: u64) {
        let text = format!(
            "Limit  Soft Limit  Hard Limit  Units\n\
             Max processes             {processes}                {processes}                processes\n\
             Max open files            1024                 {files}                files\n"
        );
        self.write("proc/self/limits", &text);
    }

    /// Version 1 of control groups and so many other mounts.
    pub fn mounts(&self, others: usize) {
        let mut text = String::new();
        for number in 0..others {
            text += &format!("{number} 1 8:1 / /mnt/{number} rw - ext4 /dev/sda rw\n");
        }
        for controller in ["pids", "memory"] {
            text += &format!("30 20 0:30 / /sys/fs/cgroup/{controller} rw - cgroup cgroup rw,{controller}\n");
        }
        self.write("proc/self/mountinfo", &text);
    }

    /// Version 2 of control groups in place of version 1, seen by an ordinary user in a delegated group.
    pub fn ordinary_user(&self) {
        self.write("proc/self/status", "Name:\ta\nUid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n");
        self.write("proc/self/mountinfo", "30 20 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        self.write("proc/self/cgroup", "0::/user.slice/user-1000.slice\n");
        self.write("sys/fs/cgroup/cgroup.stat", "nr_descendants 80\nnr_dying_descendants 2\n");
        let slice = "sys/fs/cgroup/user.slice/user-1000.slice";
        self.write(&format!("{slice}/pids.max"), "10813\n");
        self.write(&format!("{slice}/pids.current"), "60\n");
        self.write(&format!("{slice}/pids.events"), "max 0\n");
        self.write(&format!("{slice}/memory.max"), "max\n");
        self.write(&format!("{slice}/cgroup.max.descendants"), "max\n");
    }

    pub fn read(&self) -> Host {
        Host::read(&Source { root: self.root().into(), state: "/var/lib/throng".into() })
    }
}

/// Says why a test cannot run here, or fails if every test is required to run.
pub fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("THRONG_REQUIRE_ALL").is_none_or(|v| v != "1"), "{name} cannot run: {reason}");
    eprintln!("SKIPPED {name}: {reason}");
}
