//! Colour profiles: the little of them that must hold before one may stand in a PDF.
//!
//! Source: ICC.1:2010, 7.2 (the header) and B.4 (JPEG segments); ISO 32000-1, 8.6.5.5 (ICCBased colour spaces).

/// How the samples of a picture are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Gray,
    Rgb,
    Cmyk,
}

impl Space {
    pub fn components(self) -> usize {
        match self {
            Space::Gray => 1,
            Space::Rgb => 3,
            Space::Cmyk => 4,
        }
    }

    fn signature(self) -> &'static [u8; 4] {
        match self {
            Space::Gray => b"GRAY",
            Space::Rgb => b"RGB ",
            Space::Cmyk => b"CMYK",
        }
    }
}

/// Profiles of cameras take 500 bytes to 4 KiB, those of presses up to 2 MiB.
pub const MAX_PROFILE: usize = 4 << 20;

const HEADER: usize = 128;

/// The profile, cut to the length it states, if it describes `space` and is of a kind that PDF takes. A profile that
/// does not is left out: the picture is then shown with the device's own colours, as it would be without one.
pub fn usable(profile: &[u8], space: Space) -> Option<&[u8]> {
    let length = u32::from_be_bytes(profile.get(..4)?.try_into().ok()?) as usize;
    if !(HEADER..=MAX_PROFILE).contains(&length) {
        return None;
    }
    let profile = profile.get(..length)?;
    let version_fits = matches!(profile[8], 2 | 4);
    let class_fits = matches!(&profile[12..16], b"scnr" | b"mntr" | b"prtr" | b"spac");
    let fits =
        version_fits && class_fits && &profile[16..20] == space.signature() && &profile[36..40] == b"acsp";
    fits.then_some(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(space: &[u8; 4]) -> Vec<u8> {
        let mut profile = vec![0; 140];
        profile[..4].copy_from_slice(&136_u32.to_be_bytes());
        profile[8] = 4;
        profile[12..16].copy_from_slice(b"mntr");
        profile[16..20].copy_from_slice(space);
        profile[36..40].copy_from_slice(b"acsp");
        profile
    }

    #[test]
    fn a_profile_must_describe_the_pictures_own_space() {
        let profile = header(b"RGB ");
        assert_eq!(usable(&profile, Space::Rgb).map(<[u8]>::len), Some(136), "cut to its stated length");
        assert_eq!(usable(&profile, Space::Cmyk), None);
        assert_eq!(usable(&profile[..130], Space::Rgb), None, "shorter than it states");
        assert_eq!(usable(&[], Space::Rgb), None);
        let mut link = header(b"RGB ");
        link[12..16].copy_from_slice(b"link");
        assert_eq!(usable(&link, Space::Rgb), None);
    }
}
