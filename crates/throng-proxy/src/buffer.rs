//! A byte buffer that is read into at its end and consumed from its front.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a new buffer: most requests and small answers fit.
const INITIAL: usize = 8 << 10;

/// Grows by doubling up to the limit each read names. Its memory is initialised once, not for every read.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops `n` bytes from the front; more than there are drops all of them.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    pub fn clear(&mut self) {
        self.consume(usize::MAX - self.end);
    }

    /// Gives memory back that only a large body needed, so that thousands of resting connections stay small.
    pub fn release(&mut self) {
        if self.is_empty() && self.data.len() > INITIAL {
            self.data = Vec::new();
        }
    }

    /// Whether `limit` bytes are waiting, so that nothing more may be read.
    pub fn is_full(&self, limit: usize) -> bool {
        self.end - self.start >= limit
    }

    /// Reads once, keeping at most `limit` bytes in all. `Ok(0)` is the end of the stream.
    ///
    /// A full buffer is an error of the caller: `is_full` says so beforehand.
    pub async fn read_from<R: AsyncRead + Unpin>(&mut self, from: &mut R, limit: usize) -> io::Result<usize> {
        if self.is_full(limit) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if self.end == self.data.len() {
            if self.start > 0 {
                self.data.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                let size = (self.data.len() * 2).max(INITIAL).min(limit.max(INITIAL));
                self.data.resize(size.max(self.end + 1), 0);
            }
        }
        let room = (limit - (self.end - self.start)).min(self.data.len() - self.end);
        let n = from.read(&mut self.data[self.end..self.end + room]).await?;
        self.end += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            input in proptest::collection::vec(any::<u8>(), 0..40_000),
            steps in proptest::collection::vec((1usize..20_000, 1usize..20_000), 1..20),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut source = input.as_slice();
            let (mut buffer, mut output) = (Buffer::default(), Vec::new());
            for (limit, take) in steps.iter().cycle() {
                if !buffer.is_full(*limit) {
                    let n = runtime.block_on(buffer.read_from(&mut source, *limit)).unwrap();
                    prop_assert!(buffer.filled().len() <= *limit);
                    if n == 0 && buffer.is_empty() {
                        break;
                    }
                }
                let taken = (*take).min(buffer.filled().len());
                output.extend_from_slice(&buffer.filled()[..taken]);
                buffer.consume(taken);
            }
            prop_assert_eq!(output, input);
        }
    }
}
