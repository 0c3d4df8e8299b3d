//! Requests that the child makes about its own network namespace; the parent has encoded them ([`crate::netlink`]).

use super::{Errno, Outcome, check, descriptor};

const NLMSG_ERROR: u16 = 2;

/// Sends the batch and reads one acknowledgement for each request; the first error ends it.
pub fn send_batch(batch: &[u8], requests: usize) -> Outcome {
    let mut answer = [0u8; 4096];
    // SAFETY: buffers are valid for their lengths; the descriptor is closed here.
    unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let fd = descriptor(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE))?;
        let mut result = check(libc::send(fd, batch.as_ptr().cast(), batch.len(), 0) as i64);
        let mut seen = 0;
        while result.is_ok() && seen < requests {
            let length = libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0);
            result = check(length as i64);
            if result.is_ok() {
                result = acknowledgements(&answer[..length as usize], &mut seen);
            }
        }
        libc::close(fd);
        result
    }
}

fn acknowledgements(mut rest: &[u8], seen: &mut usize) -> Outcome {
    // struct nlmsghdr (16 bytes), then for NLMSG_ERROR a negative errno, 0 for success.
    while let (Some(length), Some(kind), Some(error)) = (rest.get(0..4), rest.get(4..6), rest.get(16..20)) {
        let length = u32::from_ne_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let error = i32::from_ne_bytes([error[0], error[1], error[2], error[3]]);
        if u16::from_ne_bytes([kind[0], kind[1]]) == NLMSG_ERROR {
            *seen += 1;
            if error != 0 {
                return Err(Errno(-error));
            }
        }
        rest = rest.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
    }
    Ok(())
}
