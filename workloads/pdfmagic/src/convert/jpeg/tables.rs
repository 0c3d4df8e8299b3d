//! Tables that scans refer to by number. Only whether they exist and hold together is kept.

use super::{ConvertError, damaged};

/// Destinations of each kind of table that T.81 allows.
pub const DESTINATIONS: usize = 4;

#[derive(Default)]
pub struct Tables {
    pub quantisation: [bool; DESTINATIONS],
    pub dc: [bool; DESTINATIONS],
    pub ac: [bool; DESTINATIONS],
    /// Groups of blocks (MCUs) between restart markers; 0 for none.
    pub restart_interval: u16,
}

impl Tables {
    /// T.81, B.2.4.1.
    pub fn quantisation(&mut self, mut payload: &[u8]) -> Result<(), ConvertError> {
        while let Some((&selector, rest)) = payload.split_first() {
            let (precision, destination) = (selector >> 4, usize::from(selector & 15));
            let size = match precision {
                0 => 64,
                1 => 128,
                _ => return Err(damaged(format!("a quantisation table has precision {precision}"))),
            };
            let (Some(values), Some(defined)) = (rest.get(..size), self.quantisation.get_mut(destination))
            else {
                return Err(damaged("a quantisation table is cut short or has an impossible number"));
            };
            let zero_step = match precision {
                0 => values.contains(&0),
                _ => values.chunks_exact(2).any(|value| value == [0, 0]),
            };
            if zero_step {
                return Err(damaged("a quantisation table holds a zero"));
            }
            *defined = true;
            payload = &rest[size..];
        }
        Ok(())
    }

    /// T.81, B.2.4.2 and Annex C: code lengths must fit in a binary tree.
    pub fn huffman(&mut self, mut payload: &[u8]) -> Result<(), ConvertError> {
        while let Some((&selector, rest)) = payload.split_first() {
            let Some((counts, rest)) = rest.split_at_checked(16) else {
                return Err(damaged("a Huffman table is cut short"));
            };
            let mut free: i32 = 1;
            for &count in counts {
                free = free * 2 - i32::from(count);
                if free < 0 {
                    return Err(damaged("a Huffman table has more codes than fit"));
                }
            }
            let symbols: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let destination = usize::from(selector & 15);
            let defined = match selector >> 4 {
                0 => self.dc.get_mut(destination),
                1 => self.ac.get_mut(destination),
                _ => None,
            };
            let (Some(defined), true, Some(_)) = (defined, (1..=256).contains(&symbols), rest.get(..symbols))
            else {
                return Err(damaged("a Huffman table is cut short, empty or has an impossible number"));
            };
            *defined = true;
            payload = &rest[symbols..];
        }
        Ok(())
    }

    /// T.81, B.2.4.4.
    pub fn restart_interval(&mut self, payload: &[u8]) -> Result<(), ConvertError> {
        let &[high, low] = payload else {
            return Err(damaged("the restart interval does not have two bytes"));
        };
        self.restart_interval = u16::from_be_bytes([high, low]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huffman_tables_must_hold_together() {
        let table = |selector: u8, counts: [u8; 16], symbols: usize| {
            let mut tables = Tables::default();
            let payload = [&[selector][..], &counts, &vec![0; symbols]].concat();
            tables.huffman(&payload).map(|()| (tables.dc, tables.ac))
        };
        let mut counts = [0; 16];
        counts[1] = 3;
        assert_eq!(table(0x11, counts, 3), Ok(([false; 4], [false, true, false, false])));
        assert!(table(0x11, counts, 2).is_err(), "a symbol is missing");
        assert!(table(0x15, counts, 3).is_err(), "destination 5");
        assert!(table(0x21, counts, 3).is_err(), "class 2");
        counts[0] = 3;
        assert!(table(0x00, counts, 6).is_err(), "three codes of one bit");
        assert!(table(0x00, [0; 16], 0).is_err(), "no code at all");
        assert!(table(0x00, [255; 16], 255 * 16).is_err(), "no tree has so many leaves");
    }

    #[test]
    fn quantisation_tables_must_be_whole_and_without_zeros() {
        let mut tables = Tables::default();
        assert_eq!(tables.quantisation(&[&[2][..], &[1; 64], &[0x13], &[1; 128]].concat()), Ok(()));
        assert_eq!(tables.quantisation, [false, false, true, true]);
        assert!(tables.quantisation(&[&[0][..], &[1; 63]].concat()).is_err());
        assert!(tables.quantisation(&[&[0][..], &[0; 64]].concat()).is_err());
        assert!(tables.quantisation(&[&[0x24][..], &[1; 64]].concat()).is_err());
    }
}
