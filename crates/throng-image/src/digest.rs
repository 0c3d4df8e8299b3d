//! SHA-256 digests and streams that compute them on the way through.

use crate::error::{ImageError, Result};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io::{self, Read, Write};

const PREFIX: &str = "sha256:";

/// The 64 lower-case hexadecimal digits of a digest. The only algorithm that images use in practice is SHA-256.
pub(crate) fn hex_of(digest: &str) -> Result<&str> {
    let hex = digest.strip_prefix(PREFIX).ok_or_else(|| {
        ImageError::unsupported(format!("the digest {digest:?}"), "only sha256 digests are known")
    })?;
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        Ok(hex)
    } else {
        Err(ImageError::corrupt(format!("the digest {digest:?}"), "it is not 64 hexadecimal digits"))
    }
}

/// `sha256:` and the digest of `bytes`.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Everything that `reader` has left.
pub(crate) fn of_reader(mut reader: impl Read) -> io::Result<String> {
    let mut sink = HashWriter::new(io::sink());
    io::copy(&mut reader, &mut sink)?;
    Ok(sink.finish().1)
}

#[derive(Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// A field with its length in front, so that two lists of fields never give the same stream.
    pub(crate) fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> String {
        let mut text = String::with_capacity(PREFIX.len() + 64);
        text.push_str(PREFIX);
        for byte in self.0.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Passes bytes on and keeps their digest and count.
pub(crate) struct HashWriter<W> {
    inner: W,
    hasher: Hasher,
    count: u64,
}

impl<W: Write> HashWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        HashWriter { inner, hasher: Hasher::default(), count: 0 }
    }

    /// What was written to, its digest and its length in bytes.
    pub(crate) fn finish(self) -> (W, String, u64) {
        (self.inner, self.hasher.finish(), self.count)
    }
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Passes bytes on and keeps their digest and count.
pub(crate) struct HashReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> HashReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        HashReader { inner, hasher: Hasher::default() }
    }

    pub(crate) fn finish(self) -> String {
        self.hasher.finish()
    }
}

impl<R: Read> Read for HashReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_well_known_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(of_bytes(b""), empty);
        assert_eq!(hex_of(empty).unwrap().len(), 64);
    }

    #[test]
    fn only_whole_lower_case_sha256_digests_name_blobs() {
        for wrong in
            ["", "sha256:", "sha512:00", "sha256:../../etc/passwd", &format!("sha256:{}", "A".repeat(64))]
        {
            assert!(hex_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let (mut one, mut two) = (Hasher::default(), Hasher::default());
        one.field(b"ab");
        one.field(b"c");
        two.field(b"a");
        two.field(b"bc");
        assert_ne!(one.finish(), two.finish());
    }
}
