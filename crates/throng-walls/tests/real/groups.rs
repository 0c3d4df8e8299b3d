//! Control groups of either version. The test's own group is mounted over the top of the hierarchy, in its own mount
//! namespace, so it is an ancestor of whatever the engine would make.

use crate::inside::{assert_named, here, inside, run};
use crate::support::skip;
use crate::tasks::{Crowd, no_process};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use throng_walls::{Demand, Evidence, KernelLog, State, WallId, explain, predict};

/// A group with a limit; removed when dropped.
struct Group {
    real: PathBuf,
    /// Where the hierarchy is mounted.
    top: PathBuf,
    covered: Cell<bool>,
}

impl Group {
    /// In the hierarchy that has the controller, or in the v2 tree for any.
    fn new(controller: &str) -> Option<Group> {
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let top = [v1, "/sys/fs/cgroup".into(), "/sys/fs/cgroup/unified".into()].into_iter().find(|top| {
            let has = |file: &str, word: &str| {
                std::fs::read_to_string(top.join(file))
                    .is_ok_and(|text| text.split_whitespace().any(|w| w == word))
            };
            top.join("tasks").exists()
                || top.join("cgroup.controllers").exists()
                    && (controller == "any" || has("cgroup.subtree_control", controller))
        })?;
        let real = top.join(format!("throng-walls-{}", std::process::id()));
        std::fs::create_dir(&real).ok()?;
        Some(Group { real, top, covered: Cell::new(false) })
    }

    fn write(&self, files: [&str; 2], value: &str) {
        let file = files.iter().map(|file| self.real.join(file)).find(|file| file.exists()).expect("a limit");
        std::fs::write(file, value).expect("a limit is set");
    }

    /// Makes it the top as everybody in this mount namespace sees it.
    fn cover(&self) {
        rustix::mount::mount_bind(&self.real, &self.top).expect("mounted over the top");
        self.covered.set(true);
    }

    fn uncover(&self) {
        if self.covered.replace(false) {
            rustix::mount::unmount(&self.top, rustix::mount::UnmountFlags::DETACH).expect("uncovered");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.uncover();
        // The kernel may still be burying the last task.
        for _ in 0..500 {
            if std::fs::remove_dir(&self.real).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(std::thread::panicking(), "{} is left", self.real.display());
    }
}

#[test]
fn a_group_refuses_tasks() {
    let name = "groups::a_group_refuses_tasks";
    inside(name, &["-m"], || {
        let Some(group) = Group::new("pids") else { return skip(name, "no pids controller") };
        group.write(["pids.max", "pids.max"], "30");
        let home = std::fs::read_to_string("/proc/self/cgroup").expect("the groups of this process");
        std::fs::write(group.real.join("cgroup.procs"), "0").expect("moved into it");
        group.cover();
        let before = here();
        let (crowd, error) = Crowd::until_refused(40);
        let after = here();
        drop(crowd);
        let evidence = Evidence {
            messages: no_process(&error),
            before: Some(before),
            after: Some(after),
            ..Evidence::default()
        };
        assert_named(&evidence, WallId::PidsCgroup);
        // The counter alone names it too.
        assert_named(&Evidence { messages: vec![], ..evidence }, WallId::PidsCgroup);
        let report = predict(&here(), &Demand::of(100));
        assert_eq!(report.finding(WallId::PidsCgroup).map(|f| f.state), Some(State::InTheWay));
        // Back to where it was, so that the group can be removed.
        group.uncover();
        let path = home.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            (controllers == "pids" || controllers.is_empty()).then(|| path.trim_start_matches('/').to_owned())
        });
        let back = group.top.join(path.unwrap_or_default()).join("cgroup.procs");
        std::fs::write(back, "0").expect("moved back");
    });
}

#[test]
fn a_group_runs_out_of_memory() {
    let name = "groups::a_group_runs_out_of_memory";
    inside(name, &["-m"], || {
        let Some(group) = Group::new("memory") else { return skip(name, "no memory controller") };
        group.write(["memory.max", "memory.limit_in_bytes"], "33554432");
        group.cover();
        let (before, log) = (here(), KernelLog::open().expect("root may read it"));
        let script = format!(
            "echo 0 > {}; exec perl -e 'my @all; push @all, \"x\" x 1048576 for 1..256'",
            group.top.join("cgroup.procs").display()
        );
        assert!(run("sh", &["-c", &script]).is_err(), "256 MiB in a group of 32 MiB");
        let evidence = Evidence { before: Some(before), after: Some(here()), ..Evidence::default() };
        assert_named(&evidence, WallId::Memory);
        let reason = &explain(&evidence).expect("named").evidence[0];
        assert!(reason.starts_with(&group.top.display().to_string()), "{reason}");
        // The kernel says so too, and that alone is enough.
        let kernel_log: Vec<_> = log.lines().into_iter().filter(|line| line.contains("perl")).collect();
        assert_named(&Evidence { kernel_log, ..Evidence::default() }, WallId::Memory);
        let report = predict(&here(), &Demand { memory: 8 << 20, ..Demand::of(10) });
        let finding = report.finding(WallId::Memory).expect("judged");
        assert_eq!((finding.state, finding.holds.is_some_and(|n| n < 5)), (State::InTheWay, true));
    });
}

#[test]
fn a_group_has_too_many_descendants() {
    let name = "groups::a_group_has_too_many_descendants";
    inside(name, &["-m"], || {
        let Some(group) = Group::new("any") else { return skip(name, "no version 2 of control groups") };
        if !group.real.join("cgroup.max.descendants").exists() {
            return skip(name, "groups of version 1 have no such limit");
        }
        group.write(["cgroup.max.descendants"; 2], "2");
        let children = [1, 2, 3].map(|number| group.real.join(number.to_string()));
        let outcomes: Vec<_> = children.iter().map(std::fs::create_dir).collect();
        children.iter().for_each(|child| drop(std::fs::remove_dir(child)));
        let error = outcomes.into_iter().find_map(Result::err).expect("one too many");
        let host = Some(here());
        for message in
            [format!("cannot limit shop/web-3: {error}"), format!("mkdir {}: {error}", children[2].display())]
        {
            let messages = vec![message];
            let evidence =
                Evidence { messages, before: host.clone(), after: host.clone(), ..Evidence::default() };
            assert_named(&evidence, WallId::CgroupDescendants);
        }
    });
}
