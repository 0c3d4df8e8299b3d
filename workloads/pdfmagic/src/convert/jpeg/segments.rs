//! The outer syntax: markers, segments with a length, coded data in between.

use super::{ConvertError, damaged};

/// Second bytes of markers, by the names T.81 gives them in words. Table B.1.
pub mod marker {
    pub const HUFFMAN: u8 = 0xC4;
    pub const ARITHMETIC_CONDITIONING: u8 = 0xCC;
    pub const FIRST_RESTART: u8 = 0xD0;
    pub const LAST_RESTART: u8 = 0xD7;
    pub const END: u8 = 0xD9;
    pub const SCAN: u8 = 0xDA;
    pub const QUANTISATION: u8 = 0xDB;
    pub const RESTART_INTERVAL: u8 = 0xDD;
    pub const HIERARCHICAL: u8 = 0xDE;
    pub const APP0: u8 = 0xE0;
    pub const APP1: u8 = 0xE1;
    pub const APP2: u8 = 0xE2;
    pub const APP14: u8 = 0xEE;
    const LAST_APP: u8 = 0xEF;
    const EXTENSION: u8 = 0xC8;
    const NUMBER_OF_LINES: u8 = 0xDC;
    const COMMENT: u8 = 0xFE;

    /// Frame headers of every process, including those that PDF cannot hold.
    pub fn is_frame(code: u8) -> bool {
        matches!(code, 0xC0..=0xCF | HIERARCHICAL)
            && !matches!(code, HUFFMAN | ARITHMETIC_CONDITIONING | EXTENSION)
    }

    pub fn is_application(code: u8) -> bool {
        matches!(code, APP0..=LAST_APP)
    }

    /// Segments that are stepped over without looking inside.
    pub fn has_payload(code: u8) -> bool {
        matches!(code, COMMENT | NUMBER_OF_LINES | ARITHMETIC_CONDITIONING | 0xDF | 0xF0..=0xFD)
    }
}

const PREFIX: u8 = 0xFF;

pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The coded data of one scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodedData {
    /// Bytes without restart markers; stuffed zeros count, so this is at most a little too large.
    pub bytes: usize,
    pub restarts: u64,
    /// The file ended before a marker did.
    pub cut_off: bool,
}

impl<'a> Reader<'a> {
    /// `bytes` begins with the start-of-image marker; [`super::super::detect`] has seen it.
    pub fn after_start(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 2 }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    /// The next marker's second byte. Any number of fill bytes may stand before it.
    pub fn marker(&mut self) -> Result<u8, ConvertError> {
        let start = self.at;
        match self.bytes.get(start) {
            None => return Err(damaged("it ends without an end marker; the file was cut off")),
            Some(&PREFIX) => {}
            Some(other) => {
                return Err(damaged(format!("byte {start} should begin a marker, but is {other:#04x}")));
            }
        }
        while self.bytes.get(self.at) == Some(&PREFIX) {
            self.at += 1;
        }
        let Some(&code) = self.bytes.get(self.at) else {
            return Err(damaged("it ends in the middle of a marker; the file was cut off"));
        };
        self.at += 1;
        Ok(code)
    }

    /// The payload of the segment whose marker was just read.
    pub fn payload(&mut self, what: &str) -> Result<&'a [u8], ConvertError> {
        let start = self.at;
        let Some(&[high, low]) = self.bytes.get(start..start + 2) else {
            return Err(damaged(format!("it ends before the length of a {what}; the file was cut off")));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < 2 {
            return Err(damaged(format!("the {what} at byte {start} has the impossible length {length}")));
        }
        let Some(payload) = self.bytes.get(start + 2..start + length) else {
            let left = self.bytes.len() - start;
            let what =
                format!("the {what} at byte {start} should have {length} bytes, but only {left} are left");
            return Err(damaged(what));
        };
        self.at = start + length;
        Ok(payload)
    }

    /// Steps over coded data up to the next marker that is neither a restart nor a stuffed byte.
    pub fn coded_data(&mut self) -> CodedData {
        let start = self.at;
        let mut restarts = 0;
        loop {
            let rest = &self.bytes[self.at..];
            let next = memchr::memchr(PREFIX, rest).and_then(|found| Some((found, *rest.get(found + 1)?)));
            let Some((found, code)) = next else {
                self.at = self.bytes.len();
                return CodedData { bytes: self.at - start, restarts, cut_off: true };
            };
            match code {
                0 => self.at += found + 2,
                marker::FIRST_RESTART..=marker::LAST_RESTART => {
                    self.at += found + 2;
                    restarts += 1;
                }
                PREFIX => self.at += found + 1,
                _ => {
                    self.at += found;
                    let bytes = self.at - start - 2 * restarts as usize;
                    return CodedData { bytes, restarts, cut_off: false };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coded_data_ends_at_the_first_real_marker() {
        let read = |bytes: &[u8]| {
            let file = [&[0xFF, 0xD8], bytes].concat();
            let mut reader = Reader::after_start(&file);
            (reader.coded_data(), reader.position() - 2)
        };
        let whole = CodedData { bytes: 6, restarts: 1, cut_off: false };
        assert_eq!(read(&[1, 2, 0xFF, 0, 0xFF, 0xD3, 7, 8, 0xFF, 0xD9]), (whole, 8));
        let filled = CodedData { bytes: 2, restarts: 0, cut_off: false };
        assert_eq!(read(&[1, 0xFF, 0xFF, 0xD9]), (filled, 2));
        assert!(read(&[1, 2, 3]).0.cut_off);
        assert!(read(&[1, 2, 0xFF]).0.cut_off);
        assert!(read(&[]).0.cut_off);
    }

    #[test]
    fn a_segment_must_lie_inside_the_file() {
        let file = [0xFF, 0xD8, 0xFF, 0xFE, 0, 4, 1, 2, 0xFF, 0xFE, 0, 9, 1];
        let mut reader = Reader::after_start(&file);
        assert_eq!(reader.marker(), Ok(0xFE));
        assert_eq!(reader.payload("comment").unwrap(), [1, 2]);
        assert_eq!(reader.marker(), Ok(0xFE));
        let error = reader.payload("comment").unwrap_err().to_string();
        assert!(error.contains("should have 9 bytes, but only 3 are left"), "{error}");
    }
}
