//! Loop devices: a file as a block device (loop(4)).

use super::{Errno, check, descriptor};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

// Requests and flags of linux/loop.h.
const LOOP_CTL_GET_FREE: u64 = 0x4C82;
const LOOP_CONFIGURE: u64 = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const BLOCK_SIZE: u32 = 4096;
/// Somebody else may take the device that was free a moment ago.
const TRIES: u32 = 100;

/// `struct loop_info64`.
#[repr(C)]
struct Information {
    before: [u64; 5],
    number_and_encryption: [u32; 3],
    flags: u32,
    names_and_key: [u8; 64 + 64 + 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Configuration {
    file: u32,
    block_size: u32,
    information: Information,
    reserved: [u64; 8],
}

/// Attaches the file to a device, which goes by itself when nothing uses it any more, and returns the number of the
/// device and what holds it until it is mounted. The device holds the open file, its lock (flock(2)) included.
pub fn attach(file: &File) -> io::Result<(u32, File)> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let configuration = Configuration {
        file: file.as_raw_fd() as u32,
        block_size: BLOCK_SIZE,
        information: Information {
            before: [0; 5],
            number_and_encryption: [0; 3],
            flags: LO_FLAGS_AUTOCLEAR,
            names_and_key: [0; 160],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    for _ in 0..TRIES {
        // SAFETY: the request has no argument.
        let number = descriptor(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
        let device = File::options().read(true).write(true).open(format!("/dev/loop{number}"))?;
        // SAFETY: the structure has the layout that the request wants; the kernel only reads it.
        let done =
            check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const configuration) });
        match done {
            Err(Errno(libc::EBUSY)) => {}
            Err(errno) => return Err(errno.into()),
            Ok(()) => return Ok((number.unsigned_abs(), device)),
        }
    }
    Err(io::Error::other("every loop device is taken by somebody else at once"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_large_as_the_kernel_has_them() {
        assert_eq!((size_of::<Information>(), size_of::<Configuration>()), (232, 304));
    }
}
