//! PNG: rows of noise as stored deflate blocks, cut into pieces that are put together anew for each picture.
//!
//! ```text
//! signature, IHDR
//! tEXt   the request's number
//! IDAT   zlib's header
//!        a block with the first row's filter and first pixels: the request's number, scrambled
//!        a block with the next piece of the rows, from a random picture of the pool      (repeated)
//!        an empty last block, Adler-32
//! IEND
//! ```
//!
//! Each piece is kept with its checksums, of which those of the whole follow: a picture costs a copy and a few hundred
//! additions. Noise does not compress, and compressors store it too: files are as large as an encoder's.
//!
//! Sources: PNG (W3C, third edition), sections 5, 9 and 10; zlib's format (RFC 1950) and deflate's (RFC 1951, 3.2.4).

use super::{serial_text, variants};
use crc32fast::Hasher;
use rand::{Rng, RngExt};

const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";
const CHANNELS: usize = 3;
/// Row filters. Each adds the pixel to the left (Sub) or above (Up), so two pictures that differ in their first pixels
/// differ in nearly all.
const SUB: u8 = 1;
const UP: u8 = 2;
/// Deflate with a window of 32 KiB, no dictionary, fastest.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];
/// A stored block's length has 16 bits.
const MAX_PIECE: usize = 0xffff;
/// A piece costs 5 bytes of framing and its checksums' additions, which small files should not feel.
const MIN_PIECE: usize = 4096;
/// Pieces that a picture is cut into if that does not make them too large or too small.
const USUAL_PIECES: usize = 16;
/// Bytes of a stored block beside its content.
const FRAME: usize = 5;
/// Bytes of the first pixels that hold the request's number: all 64 bits, where a row is that long.
const NUMBER_BYTES: usize = 8;

#[derive(Debug)]
pub(super) struct PngPool {
    /// Signature and IHDR, the only things that must come before any other chunk.
    preamble: Vec<u8>,
    /// How many bytes of the first row hold the request's number.
    number_bytes: usize,
    /// Added to the number, so that two loads do not begin with the same picture.
    offset: u64,
    /// One after the other, the rows behind those bytes.
    slots: Vec<Slot>,
    /// Of the whole IDAT chunk.
    data_length: u32,
}

/// Where a piece goes.
#[derive(Debug)]
struct Slot {
    /// Pieces of one length, each from another picture.
    variants: Vec<Piece>,
    shift: CrcShift,
}

#[derive(Debug)]
struct Piece {
    /// A stored block.
    block: Vec<u8>,
    crc: u32,
    adler: Adler,
}

impl PngPool {
    pub fn new(width: u16, height: u16, rng: &mut impl Rng) -> PngPool {
        let mut header = Vec::from(u32::from(width).to_be_bytes());
        header.extend_from_slice(&u32::from(height).to_be_bytes());
        header.extend_from_slice(&[8, 2, 0, 0, 0]);
        let mut preamble = SIGNATURE.to_vec();
        push_chunk(&mut preamble, b"IHDR", |out| out.extend_from_slice(&header));

        let row = 1 + usize::from(width) * CHANNELS;
        let number_bytes = NUMBER_BYTES.min(row - 1);
        let mut rows = vec![0; row * usize::from(height)];
        let shared = rows.len() - 1 - number_bytes;
        let length = shared.div_ceil(USUAL_PIECES).clamp(MIN_PIECE, MAX_PIECE);
        let mut variants_of: Vec<Vec<Piece>> = (0..shared.div_ceil(length)).map(|_| Vec::new()).collect();
        for _ in 0..variants(rows.len()) {
            rng.fill_bytes(&mut rows);
            rows.iter_mut().step_by(row).for_each(|filter| *filter = UP);
            for (variants, data) in variants_of.iter_mut().zip(rows[1 + number_bytes..].chunks(length)) {
                variants.push(Piece::new(data));
            }
        }
        let slots: Vec<Slot> = variants_of.into_iter().map(Slot::new).collect();
        let blocks: usize = slots.iter().map(Slot::length).sum();
        let data_length = (ZLIB_HEADER.len() + FRAME + 1 + number_bytes + blocks + FRAME + 4) as u32;
        PngPool { preamble, number_bytes, offset: rng.random(), slots, data_length }
    }

    pub fn append(&self, serial: u64, rng: &mut impl Rng, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.preamble);
        push_chunk(out, b"tEXt", |out| {
            out.extend_from_slice(b"Comment\0");
            out.extend_from_slice(&serial_text(serial));
        });
        let mut start = [SUB; 1 + NUMBER_BYTES];
        start[1..].copy_from_slice(&self.scrambled(serial));
        let start = &start[..1 + self.number_bytes];

        out.extend_from_slice(&self.data_length.to_be_bytes());
        let checked = out.len();
        out.extend_from_slice(b"IDAT");
        out.extend_from_slice(&ZLIB_HEADER);
        push_stored(out, start, false);
        let (mut crc, mut adler) = (crc32fast::hash(&out[checked..]), Adler::of(start));
        for slot in &self.slots {
            let piece = &slot.variants[rng.random_range(0..slot.variants.len())];
            out.extend_from_slice(&piece.block);
            crc = slot.shift.apply(crc) ^ piece.crc;
            adler = adler.followed_by(piece.adler);
        }
        let end = out.len();
        push_stored(out, &[], true);
        out.extend_from_slice(&adler.to_bytes());
        let mut hasher = Hasher::new_with_initial(crc);
        hasher.update(&out[end..]);
        out.extend_from_slice(&hasher.finalize().to_be_bytes());
        push_chunk(out, b"IEND", |_| {});
    }

    /// Different numbers give different bytes: multiplying by an odd number loses nothing, nor does it in the low bytes
    /// alone, which is all that a narrow picture has room for.
    fn scrambled(&self, serial: u64) -> [u8; NUMBER_BYTES] {
        serial.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.offset).to_le_bytes()
    }
}

impl Slot {
    fn new(variants: Vec<Piece>) -> Slot {
        let length = variants.first().map_or(0, |piece| piece.block.len());
        Slot { variants, shift: CrcShift::over(length) }
    }

    fn length(&self) -> usize {
        self.variants.first().map_or(0, |piece| piece.block.len())
    }
}

impl Piece {
    fn new(data: &[u8]) -> Piece {
        let mut block = Vec::with_capacity(FRAME + data.len());
        push_stored(&mut block, data, false);
        Piece { crc: crc32fast::hash(&block), adler: Adler::of(data), block }
    }
}

/// Appends a chunk around what `payload` appends.
fn push_chunk(out: &mut Vec<u8>, kind: &[u8; 4], payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    payload(out);
    let length = (out.len() - start - 8) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    let sum = crc32fast::hash(&out[start + 4..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

/// Appends a stored block of at most [`MAX_PIECE`] bytes. It begins at a whole byte because only stored blocks and
/// zlib's header come before it.
fn push_stored(out: &mut Vec<u8>, data: &[u8], last: bool) {
    let length = data.len() as u16;
    out.push(u8::from(last));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(data);
}

/// What a CRC-32 becomes by so many further bytes, but for those bytes' own: a linear map, so it is kept as what becomes of
/// each bit. The CRC of two texts, one after the other, is the first one's so shifted plus (bit by bit) the second one's.
#[derive(Debug)]
struct CrcShift([u32; 32]);

impl CrcShift {
    fn over(length: usize) -> CrcShift {
        let further = Hasher::new_with_initial_len(0, length as u64);
        CrcShift(std::array::from_fn(|bit| {
            let mut hasher = Hasher::new_with_initial_len(1 << bit, 0);
            hasher.combine(&further);
            hasher.finalize()
        }))
    }

    fn apply(&self, crc: u32) -> u32 {
        // Without branches: a mask of all bits where the bit is set.
        self.0
            .iter()
            .enumerate()
            .fold(0, |sum, (bit, image)| sum ^ (image & 0_u32.wrapping_sub(crc >> bit & 1)))
    }
}

/// Adler-32 (RFC 1950, section 8.2) of some bytes, with their number: enough to go on from it.
#[derive(Debug, Clone, Copy)]
struct Adler {
    /// One plus the bytes' sum.
    ones: u64,
    /// Sum of `ones` after each byte.
    sums: u64,
    length: u64,
}

impl Adler {
    /// The largest prime below 2^16.
    const MODULUS: u64 = 65_521;

    fn of(data: &[u8]) -> Adler {
        let (mut ones, mut sums) = (1, 0);
        // Both sums stay far below 2^64 over a block of this size.
        for block in data.chunks(1 << 16) {
            for byte in block {
                ones += u64::from(*byte);
                sums += ones;
            }
            ones %= Self::MODULUS;
            sums %= Self::MODULUS;
        }
        Adler { ones, sums, length: data.len() as u64 }
    }

    /// The sum of both texts, one after the other: in the second, `ones` begins higher by what the first left of it.
    fn followed_by(self, next: Adler) -> Adler {
        let carried = (self.ones + Self::MODULUS - 1) % Self::MODULUS;
        Adler {
            ones: (carried + next.ones) % Self::MODULUS,
            sums: (self.sums + next.sums + carried * (next.length % Self::MODULUS)) % Self::MODULUS,
            length: self.length + next.length,
        }
    }

    fn to_bytes(self) -> [u8; 4] {
        ((self.sums << 16 | self.ones) as u32).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn adler_is_what_the_format_says() {
        // "Wikipedia" is the usual example; no bytes at all give 1.
        assert_eq!(Adler::of(b"Wikipedia").to_bytes(), 0x11e6_0398_u32.to_be_bytes());
        assert_eq!(Adler::of(b"").to_bytes(), 1_u32.to_be_bytes());
        // The largest sums there can be, over several blocks: n bytes of 255 give 1 + 255 n and n + 255 n (n + 1) / 2.
        let (n, modulus) = (200_000_u64, Adler::MODULUS);
        let (ones, sums) = ((1 + 255 * n) % modulus, (n + 255 * n * (n + 1) / 2) % modulus);
        assert_eq!(Adler::of(&vec![255; n as usize]).to_bytes(), ((sums << 16 | ones) as u32).to_be_bytes());
    }

    proptest! {
        #[test]
        fn checksums_of_parts_give_that_of_the_whole(
            text in proptest::collection::vec(any::<u8>(), 0..4096),
            cut in any::<prop::sample::Index>(),
        ) {
            let (first, second) = text.split_at(cut.index(text.len() + 1));
            let parts = Adler::of(first).followed_by(Adler::of(second));
            prop_assert_eq!(parts.to_bytes(), Adler::of(&text).to_bytes());
            let crc = CrcShift::over(second.len()).apply(crc32fast::hash(first)) ^ crc32fast::hash(second);
            prop_assert_eq!(crc, crc32fast::hash(&text));
        }
    }
}
