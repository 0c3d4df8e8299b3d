//! How large the page is and how the picture lies on it.

/// Pixels per inch when the image does not say: what ImageMagick's `convert` assumes, one pixel to a PDF unit.
pub const DEFAULT_DENSITY: f64 = 72.0;

/// The longest side of a page in PDF units; larger pages make the unit itself larger.
/// Source: ISO 32000-1, Annex C.2 (14,400 units, 200 inches at 1/72 inch) and Table 30 (UserUnit).
pub const MAX_PAGE_UNITS: f64 = 14_400.0;

const UNITS_PER_INCH: f64 = 72.0;
const CENTIMETRES_PER_INCH: f64 = 2.54;

/// Densities outside of this range (in pixels per inch) are mistakes, not intentions.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 1.0..=30_000.0;

/// Pixels per inch along the stored picture's width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Density {
    x: f64,
    y: f64,
}

impl Density {
    /// `None` when either figure cannot be meant.
    pub fn per_inch(x: f64, y: f64) -> Option<Self> {
        (PLAUSIBLE.contains(&x) && PLAUSIBLE.contains(&y)).then_some(Density { x, y })
    }

    pub fn per_centimetre(x: f64, y: f64) -> Option<Self> {
        Self::per_inch(x * CENTIMETRES_PER_INCH, y * CENTIMETRES_PER_INCH)
    }

    pub fn per_metre(x: f64, y: f64) -> Option<Self> {
        Self::per_centimetre(x / 100.0, y / 100.0)
    }

    /// Only the shape of a pixel is known: the width keeps the default density.
    pub fn aspect_ratio(x: f64, y: f64) -> Option<Self> {
        if x <= 0.0 || y <= 0.0 {
            return None;
        }
        Self::per_inch(DEFAULT_DENSITY, DEFAULT_DENSITY * y / x)
    }
}

impl Default for Density {
    fn default() -> Self {
        Density { x: DEFAULT_DENSITY, y: DEFAULT_DENSITY }
    }
}

/// EXIF's orientation, 1 to 8: where the stored picture's first row and first column belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orientation(u8);

impl Orientation {
    pub fn new(value: u16) -> Option<Self> {
        u8::try_from(value).ok().filter(|value| (1..=8).contains(value)).map(Orientation)
    }

    /// Rows become columns, so width and height change places.
    fn turns(self) -> bool {
        self.0 >= 5
    }
}

impl Default for Orientation {
    fn default() -> Self {
        Orientation(1)
    }
}

/// A page and the transformation that lays the unit square of a PDF image on all of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// In user units.
    pub width: f64,
    pub height: f64,
    /// Length of a user unit in 1/72 inch; a whole number.
    pub user_unit: f64,
    pub matrix: [f32; 6],
}

impl Placement {
    pub fn new(width: u32, height: u32, density: Density, orientation: Orientation) -> Self {
        let across = f64::from(width) * UNITS_PER_INCH / density.x;
        let down = f64::from(height) * UNITS_PER_INCH / density.y;
        let (width, height) = if orientation.turns() { (down, across) } else { (across, down) };
        let user_unit = (width.max(height) / MAX_PAGE_UNITS).ceil().max(1.0);
        let (width, height) = (width / user_unit, height / user_unit);
        Placement { width, height, user_unit, matrix: matrix(width as f32, height as f32, orientation) }
    }
}

/// `[a b c d e f]` with x' = ax + cy + e and y' = bx + dy + f. The image's first row is at y = 1 of the unit square.
fn matrix(w: f32, h: f32, orientation: Orientation) -> [f32; 6] {
    match orientation.0 {
        2 => [-w, 0.0, 0.0, h, w, 0.0],
        3 => [-w, 0.0, 0.0, -h, w, h],
        4 => [w, 0.0, 0.0, -h, 0.0, h],
        5 => [0.0, -h, -w, 0.0, w, h],
        6 => [0.0, -h, w, 0.0, 0.0, h],
        7 => [0.0, h, w, 0.0, 0.0, 0.0],
        8 => [0.0, h, -w, 0.0, w, 0.0],
        _ => [w, 0.0, 0.0, h, 0.0, 0.0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_images_size_at_its_density() {
        let size = |w, h, density: Density, orientation| {
            let page = Placement::new(w, h, density, Orientation::new(orientation).unwrap());
            (page.width, page.height, page.user_unit)
        };
        let dpi = |x, y| Density::per_inch(x, y).unwrap();
        assert_eq!(size(640, 480, Density::default(), 1), (640.0, 480.0, 1.0));
        assert_eq!(size(600, 300, dpi(300.0, 300.0), 1), (144.0, 72.0, 1.0));
        assert_eq!(size(600, 300, dpi(300.0, 150.0), 6), (144.0, 144.0, 1.0));
        assert_eq!(size(600, 300, dpi(72.0, 72.0), 8), (300.0, 600.0, 1.0));
        assert_eq!(size(14_400, 10, Density::default(), 1), (14_400.0, 10.0, 1.0));
        assert_eq!(size(28_800, 20, Density::default(), 1), (14_400.0, 10.0, 2.0));
        let (width, _, unit) = size(65_535, 1, dpi(1.0, 1.0), 1);
        assert!(width <= MAX_PAGE_UNITS && unit == 328.0, "{width} {unit}");
    }

    #[test]
    fn densities_that_cannot_be_meant_are_none() {
        assert_eq!(Density::per_inch(0.0, 72.0), None);
        assert_eq!(Density::per_inch(f64::NAN, 72.0), None);
        assert_eq!(Density::per_inch(1e9, 72.0), None);
        assert_eq!(Density::aspect_ratio(0.0, 1.0), None);
        assert_eq!(Density::aspect_ratio(1.0, 2.0), Density::per_inch(72.0, 144.0));
        assert_eq!(Density::per_metre(2835.0, 2835.0).map(|d| d.x.round()), Some(72.0));
    }
}
