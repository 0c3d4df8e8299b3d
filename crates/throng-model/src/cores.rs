//! Which cores of a host something may run on.

use crate::units::UnitError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Cores by their numbers, from 0; written as the kernel does: `0-3,8` (cpuset(7), "List format").
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CoreSet([u64; CoreSet::WORDS]);

impl CoreSet {
    /// Cores that there can be; glibc's `CPU_SETSIZE` is the same.
    pub const MOST: usize = 1024;
    const WORDS: usize = Self::MOST / 64;

    pub fn contains(&self, core: usize) -> bool {
        self.0.get(core / 64).is_some_and(|word| word >> (core % 64) & 1 == 1)
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The highest number, if there is any.
    pub fn last(&self) -> Option<usize> {
        (0..Self::MOST).rev().find(|core| self.contains(*core))
    }

    fn insert(&mut self, core: usize) {
        if let Some(word) = self.0.get_mut(core / 64) {
            *word |= 1 << (core % 64);
        }
    }
}

impl FromStr for CoreSet {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut cores = CoreSet::default();
        let number = |text: &str| {
            text.trim().parse::<usize>().ok().filter(|core| *core < Self::MOST).ok_or_else(|| {
                let most = Self::MOST - 1;
                UnitError(format!("{text:?} is not the number of a core, which is from 0 to {most}"))
            })
        };
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(UnitError(format!("{part:?} ends before it begins")));
            }
            (first..=last).for_each(|core| cores.insert(core));
        }
        Ok(cores)
    }
}

impl fmt::Display for CoreSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut core, mut separator) = (0, "");
        while core < Self::MOST {
            if !self.contains(core) {
                core += 1;
                continue;
            }
            let first = core;
            while self.contains(core + 1) {
                core += 1;
            }
            match core == first {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}-{core}")?,
            }
            (core, separator) = (core + 1, ",");
        }
        Ok(())
    }
}

impl fmt::Debug for CoreSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoreSet({self})")
    }
}

impl TryFrom<String> for CoreSet {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<CoreSet> for String {
    fn from(cores: CoreSet) -> String {
        cores.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for (text, written) in [
            ("0", "0"),
            ("1,0", "0-1"),
            ("0-3,8", "0-3,8"),
            ("63-64", "63-64"),
            (" 2 , 5-5", "2,5"),
            ("1023", "1023"),
        ] {
            let cores: CoreSet = text.parse().expect(text);
            assert_eq!(cores.to_string(), written);
            assert_eq!(written.parse(), Ok(cores));
        }
        for wrong in ["", "a", "1-", "3-1", "1024", "0,,1", "-1"] {
            assert!(wrong.parse::<CoreSet>().is_err(), "{wrong}");
        }
        let cores: CoreSet = "2-3".parse().expect("cores");
        assert_eq!((cores.contains(1), cores.contains(3), cores.last()), (false, true, Some(3)));
        assert!(CoreSet::default().is_empty() && CoreSet::default().last().is_none());
    }
}
