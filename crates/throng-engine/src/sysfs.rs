//! The `/sys` that replicas share.
//!
//! A view of sysfs belongs to the network namespace in which it is mounted. When one is mounted, the kernel compares it
//! with every view that exists (`sget_fc`, under a lock of the whole host), so with views of their own ten thousand
//! replicas would each be compared with all others: milliseconds each. So one thread lives in a network namespace where
//! nothing is, and mounts the view of that one again and again. What it costs: no interface but `lo` is in
//! `/sys/class/net`.

use crate::sys;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

type Answer = mpsc::Sender<io::Result<OwnedFd>>;

/// Makes mounts of the shared view; its thread starts with the first one.
#[derive(Default)]
pub struct Views {
    orders: Mutex<Option<mpsc::Sender<Answer>>>,
}

impl Views {
    /// A mount that is attached nowhere yet.
    pub fn mount(&self) -> io::Result<OwnedFd> {
        let (sender, answer) = mpsc::channel();
        let gone = || io::Error::other("the thread that mounts /sys has ended");
        {
            // Each change is one store.
            let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            let open = match orders.take() {
                Some(open) => open,
                None => start()?,
            };
            // A thread that has ended is started again with the next order.
            open.send(sender).map_err(|_| gone())?;
            *orders = Some(open);
        }
        answer.recv().map_err(|_| gone())?
    }
}

fn start() -> io::Result<mpsc::Sender<Answer>> {
    let (orders, receiver) = mpsc::channel::<Answer>();
    let (ready, entered) = mpsc::channel();
    thread::Builder::new().name("throng-sysfs".into()).spawn(move || {
        let outcome = sys::unshare(libc::CLONE_NEWNET).map_err(io::Error::from);
        let fine = outcome.is_ok();
        // Whoever has gone needs no answer.
        if ready.send(outcome).is_ok() && fine {
            receiver.iter().for_each(|answer| drop(answer.send(view())));
        }
    })?;
    entered.recv().map_err(|_| io::Error::other("the thread that mounts /sys has ended"))??;
    Ok(orders)
}

fn view() -> io::Result<OwnedFd> {
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let restricted = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, restricted)?)
}
