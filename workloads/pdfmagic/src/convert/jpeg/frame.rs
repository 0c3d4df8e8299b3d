//! The frame: size and components; and the scans that must fill it.

use super::segments::{CodedData, marker};
use super::tables::Tables;
use super::{ConvertError, Format, Limits, Space, damaged, unsupported};

/// The most blocks that one interleaved MCU may hold. T.81, B.2.3.
const MAX_BLOCKS_PER_MCU: u64 = 10;

#[derive(Debug, Clone, Copy)]
struct Component {
    id: u8,
    /// Sampling factors, 1 to 4.
    across: u8,
    down: u8,
    quantisation: usize,
    /// A scan with its DC coefficients has been seen.
    covered: bool,
}

#[derive(Debug)]
pub struct Frame {
    pub width: u32,
    pub height: u32,
    progressive: bool,
    components: Vec<Component>,
}

/// What the coded data of a scan must at least hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    least_bits: u64,
    restarts: u64,
}

impl Frame {
    /// T.81, B.2.2. The limit on pixels is applied here, before anything else is believed.
    pub fn parse(code: u8, payload: &[u8], limits: &Limits) -> Result<Self, ConvertError> {
        let progressive = match code {
            0xC0 | 0xC1 => false,
            0xC2 => true,
            0xC9..=0xCB | 0xCD..=0xCF => return Err(unsupported("it is coded arithmetically")),
            0xC3 => return Err(unsupported("it is a lossless JPEG")),
            marker::HIERARCHICAL | 0xC5..=0xC7 => return Err(unsupported("it is a hierarchical JPEG")),
            _ => return Err(damaged(format!("its frame has the unknown kind {code:#04x}"))),
        };
        let &[precision, h1, h0, w1, w0, count, ref specifications @ ..] = payload else {
            return Err(damaged("its frame header is too short"));
        };
        let (width, height) = (u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into());
        limits.check_pixels(Format::Jpeg, width, height)?;
        if precision != 8 {
            return Err(unsupported(format!("it has {precision} bits a sample where PDF takes 8")));
        }
        if specifications.len() != usize::from(count) * 3 {
            return Err(damaged(format!("its frame header does not have the {count} components it states")));
        }
        let mut components: Vec<Component> = Vec::with_capacity(4);
        for specification in specifications.chunks_exact(3) {
            let component = Component::parse(specification)?;
            if components.iter().any(|earlier| earlier.id == component.id) {
                return Err(damaged(format!("two components have the number {}", component.id)));
            }
            components.push(component);
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(unsupported(format!("it has {count} colour components")));
        }
        Ok(Frame { width, height, progressive, components })
    }

    pub fn space(&self) -> Space {
        match self.components.len() {
            1 => Space::Gray,
            3 => Space::Rgb,
            _ => Space::Cmyk,
        }
    }

    /// The components are called R, G and B, as some encoders do that store RGB without Adobe's marker.
    pub fn named_rgb(&self) -> bool {
        self.components.iter().map(|component| component.id).eq(*b"RGB")
    }

    /// Takes note of a scan. T.81, B.2.3 and G.1.1.
    pub fn scan(&mut self, header: &[u8], tables: &Tables) -> Result<Scan, ConvertError> {
        let (&count, rest) = header.split_first().ok_or_else(|| damaged("a scan header is empty"))?;
        let selectors_length = usize::from(count) * 2;
        let (Some(selectors), Some(&[first, last, approximation])) =
            (rest.get(..selectors_length), rest.get(selectors_length..))
        else {
            return Err(damaged("a scan header does not have the length it states"));
        };
        if !(1..=4).contains(&count) {
            return Err(damaged(format!("a scan has {count} components")));
        }
        if self.progressive
            && (first > last || last > 63 || (first == 0) != (last == 0) || (first > 0 && count > 1))
        {
            return Err(damaged(format!("a scan has the impossible band {first} to {last}")));
        }
        // The least that one block takes: a DC code and an end-of-block code of one bit each, or in a progressive
        // file's DC scan one bit; AC scans can skip 32,767 blocks with one code, so nothing is asked of them.
        let (needs_dc, needs_ac, bits_per_block) = match (self.progressive, first) {
            (false, _) => (true, true, 2),
            (true, 0) => (approximation >> 4 == 0, false, 1),
            (true, _) => (false, true, 0),
        };
        let mut chosen = Vec::with_capacity(4);
        for selector in selectors.chunks_exact(2) {
            let index = self.component(selector[0])?;
            if chosen.contains(&index) {
                return Err(damaged("a scan names a component twice"));
            }
            chosen.push(index);
            let (dc, ac) = (usize::from(selector[1] >> 4), usize::from(selector[1] & 15));
            let component = &mut self.components[index];
            component.covered |= first == 0;
            let missing = if tables.quantisation.get(component.quantisation) != Some(&true) {
                Some("quantisation")
            } else if (needs_dc && tables.dc.get(dc) != Some(&true))
                || (needs_ac && tables.ac.get(ac) != Some(&true))
            {
                Some("Huffman")
            } else {
                None
            };
            if let Some(kind) = missing {
                return Err(damaged(format!("a scan needs a {kind} table that the file does not have")));
            }
        }
        let (units, blocks_per_unit) = self.units(&chosen)?;
        let restarts = match u64::from(tables.restart_interval) {
            0 => 0,
            interval => units.div_ceil(interval) - 1,
        };
        Ok(Scan { least_bits: units * blocks_per_unit * bits_per_block, restarts })
    }

    fn component(&self, id: u8) -> Result<usize, ConvertError> {
        let found = self.components.iter().position(|component| component.id == id);
        found
            .ok_or_else(|| damaged(format!("a scan names the component {id}, which the frame does not have")))
    }

    /// Coding units (MCUs) of a scan over these components and the 8 x 8 blocks in each. T.81, A.2.
    fn units(&self, chosen: &[usize]) -> Result<(u64, u64), ConvertError> {
        let most_across = self.components.iter().map(|component| component.across).max().unwrap_or(1);
        let most_down = self.components.iter().map(|component| component.down).max().unwrap_or(1);
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        if let &[only] = chosen {
            let component = self.components[only];
            let across = (width * u64::from(component.across)).div_ceil(u64::from(most_across)).div_ceil(8);
            let down = (height * u64::from(component.down)).div_ceil(u64::from(most_down)).div_ceil(8);
            return Ok((across * down, 1));
        }
        let blocks = chosen.iter().map(|&index| self.components[index].blocks()).sum();
        if blocks > MAX_BLOCKS_PER_MCU {
            return Err(damaged(format!(
                "a scan interleaves {blocks} blocks, more than {MAX_BLOCKS_PER_MCU}"
            )));
        }
        let across = width.div_ceil(8 * u64::from(most_across));
        let down = height.div_ceil(8 * u64::from(most_down));
        Ok((across * down, blocks))
    }

    /// To be called at the end marker.
    pub fn check_complete(&self) -> Result<(), ConvertError> {
        match self.components.iter().find(|component| !component.covered) {
            Some(component) => Err(damaged(format!("no scan holds its component {}", component.id))),
            None => Ok(()),
        }
    }
}

impl Component {
    fn parse(specification: &[u8]) -> Result<Self, ConvertError> {
        let &[id, sampling, quantisation] = specification else {
            return Err(damaged("a component of its frame is cut short"));
        };
        let (across, down) = (sampling >> 4, sampling & 15);
        if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
            return Err(damaged(format!("a component has the sampling factors {across} x {down}")));
        }
        Ok(Component { id, across, down, quantisation: usize::from(quantisation), covered: false })
    }

    fn blocks(self) -> u64 {
        u64::from(self.across) * u64::from(self.down)
    }
}

impl Scan {
    pub fn check(&self, data: CodedData) -> Result<(), ConvertError> {
        if data.cut_off {
            return Err(damaged(
                "it ends in the middle of the picture, without an end marker; the file was cut off",
            ));
        }
        let (least, found) = (self.least_bits.div_ceil(8), data.bytes as u64);
        if found < least {
            let what =
                format!("a scan of this size takes at least {least} bytes, but only {found} are there");
            return Err(damaged(what));
        }
        if data.restarts < self.restarts {
            let what = format!("a scan has {} of its {} restart markers", data.restarts, self.restarts);
            return Err(damaged(what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(code: u8, payload: &[u8]) -> Result<Frame, ConvertError> {
        Frame::parse(code, payload, &Limits::default())
    }

    fn tables() -> Tables {
        Tables { quantisation: [true; 4], dc: [true; 4], ac: [true; 4], restart_interval: 0 }
    }

    const COLOUR: [u8; 15] = [8, 0, 17, 0, 33, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0];

    #[test]
    fn the_least_bits_follow_from_the_blocks() {
        // 33 x 17 pixels in MCUs of 16 x 16: 3 x 2 of them, with six blocks each.
        let scan = frame(0xC0, &COLOUR).unwrap().scan(&[3, 1, 0, 2, 0, 3, 0, 0, 63, 0], &tables()).unwrap();
        assert_eq!(scan, Scan { least_bits: 6 * 6 * 2, restarts: 0 });
        // Alone, the half-size component has 17 x 9 samples: 3 x 2 blocks; one bit each in a progressive DC scan.
        let scan = frame(0xC2, &COLOUR).unwrap().scan(&[1, 2, 0, 0, 0, 1], &tables()).unwrap();
        assert_eq!(scan, Scan { least_bits: 6, restarts: 0 });
        let restarting = Tables { restart_interval: 4, ..tables() };
        let scan = frame(0xC0, &COLOUR).unwrap().scan(&[3, 1, 0, 2, 0, 3, 0, 0, 63, 0], &restarting).unwrap();
        assert_eq!(scan.restarts, 1);
    }

    #[test]
    fn frames_that_pdf_cannot_hold_are_named() {
        for (code, precision, expected) in [
            (0xC3, 8, "lossless"),
            (0xC9, 8, "arithmetically"),
            (0xDE, 8, "hierarchical"),
            (0xC1, 12, "12 bits"),
        ] {
            let mut payload = COLOUR;
            payload[0] = precision;
            let error = frame(code, &payload).unwrap_err();
            assert!(matches!(error, ConvertError::Unsupported { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_frame_must_make_sense() {
        let broken = |at: usize, value: u8| {
            let mut payload = COLOUR;
            payload[at] = value;
            frame(0xC0, &payload).unwrap_err()
        };
        assert!(matches!(broken(2, 0), ConvertError::Damaged { .. }), "no height");
        assert!(matches!(broken(5, 4), ConvertError::Damaged { .. }), "four components stated");
        assert!(matches!(broken(7, 0x02), ConvertError::Damaged { .. }), "sampling factor 0");
        assert!(matches!(broken(9, 1), ConvertError::Damaged { .. }), "two components 1");
        let huge = [8, 0xFF, 0xFF, 0xFF, 0xFF, 1, 1, 0x11, 0];
        assert!(matches!(frame(0xC0, &huge), Err(ConvertError::TooManyPixels { width: 65_535, .. })));
    }

    #[test]
    fn scans_need_their_tables_and_components() {
        let scan = |tables: Tables, header: &[u8]| frame(0xC0, &COLOUR).unwrap().scan(header, &tables);
        let whole = [3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0];
        assert!(scan(tables(), &whole).is_ok());
        assert!(scan(Tables { ac: [true, false, true, true], ..tables() }, &whole).is_err());
        assert!(scan(Tables { quantisation: [false; 4], ..tables() }, &whole).is_err());
        assert!(scan(tables(), &[1, 9, 0, 0, 63, 0]).is_err(), "no component 9");
        assert!(scan(tables(), &[2, 1, 0, 1, 0, 0, 63, 0]).is_err(), "component 1 twice");
        assert!(scan(tables(), &[3, 1, 0]).is_err(), "too short");
        let mut partly = frame(0xC0, &COLOUR).unwrap();
        partly.scan(&[1, 1, 0, 0, 63, 0], &tables()).unwrap();
        assert!(partly.check_complete().unwrap_err().to_string().contains("component 2"));
    }
}
