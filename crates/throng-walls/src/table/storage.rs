//! Rows about mounts, disks and images.

use super::{Wall, WallId};

pub const MOUNT_TABLE: Wall = Wall {
    id: WallId::MountTable,
    name: "mount-table",
    title: "mount table",
    seen: &[],
    silent: "each start takes longer than the last; systemd and others that read the table are busy all the time",
    limit: "time, not a number: each reader of `/proc/self/mountinfo` goes through all of it, and each new mount \
            namespace copies it",
    why: "containers whose mounts appear on the host add to a table that everybody reads again at each change",
    here: "mounts exist in the replica's own namespace only, so the host's table does not grow",
    moves: "fewer mounts on the host; private propagation",
    reference: "<https://github.com/opencontainers/runc/issues/2255>, <https://github.com/opencontainers/runc/issues/3973>",
};

pub const MOUNT_COUNT: Wall = Wall {
    id: WallId::MountCount,
    name: "mount-count",
    title: "mounts of a namespace",
    seen: &[
        "creating overlay mount to /var/lib/docker/overlay2/1/merged: no space left on device",
        "cannot start shop/web-1: cannot mount overlay at /var/lib/throng/engine/shop/web-1/root: No space left on \
         device (os error 28)",
    ],
    silent: "",
    limit: "`fs.mount-max` mounts in each mount namespace",
    why: "a limit against programs that mount without end; it counts what a namespace began with",
    here: "each replica has its own namespace: the host's mounts, at most 30 of the engine's, and its volumes",
    moves: "a higher limit, fewer mounts on the host",
    reference: "<https://github.com/moby/moby/issues/45760>; Documentation/admin-guide/sysctl/fs",
};

pub const DISK: Wall = Wall {
    id: WallId::Disk,
    name: "disk",
    title: "disk space and inodes",
    seen: &[
        "write /data/file: no space left on device",
        "cannot prepare shop/web-1: No space left on device (os error 28)",
        "cannot open the log of shop/web-1: No space left on device (os error 28)",
        "cannot write the state: Disk quota exceeded (os error 122)",
    ],
    silent: "",
    limit: "free bytes and free inodes of the file system that holds the state folder",
    why: "writable layers and logs grow for as long as their programs write, and leftovers stay until they are removed",
    here: "logs are rotated; everything of a replica goes when it is removed",
    moves: "space: `throng down` for apps that are not needed, or a larger disk under THRONG_HOME",
    reference: "statvfs(3)",
};

pub const IMAGE_PULLS: Wall = Wall {
    id: WallId::ImagePulls,
    name: "image-pulls",
    title: "image pulls",
    seen: &[
        "toomanyrequests: You have reached your pull rate limit",
        "cannot fetch alpine: 429 Too Many Requests",
    ],
    silent: "",
    limit: "the registry's own rate limit, and the network's speed",
    why: "nested daemons each fetch the same image",
    here: "an image is fetched once, before the first replica starts, and its layers are shared by all",
    moves: "log in, use a mirror, or load the image from an archive with `throng load -i`",
    reference: "<https://docs.docker.com/docker-hub/usage/>",
};
