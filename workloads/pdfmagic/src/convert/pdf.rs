//! One picture on one page, written with pdf-writer.

use super::error::ConvertError;
use super::icc::Space;
use super::page::Placement;
use pdf_writer::types::Predictor;
use pdf_writer::writers::ImageXObject;
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, TextStr};

const CATALOG: Ref = Ref::new(1);
const PAGES: Ref = Ref::new(2);
const PAGE: Ref = Ref::new(3);
const CONTENT: Ref = Ref::new(4);
const INFO: Ref = Ref::new(5);
const PICTURE: Ref = Ref::new(6);
const MASK: Ref = Ref::new(7);
const PROFILE: Ref = Ref::new(8);

const PICTURE_NAME: Name<'static> = Name(b"Im");

/// Room for everything that is not a stream's data, so that the file is written without growing the buffer.
const SKELETON: usize = 4096;

/// Coded samples and what a reader needs to know of them.
pub struct Picture<'a> {
    pub width: u32,
    pub height: u32,
    pub bits: u8,
    pub colours: Colours<'a>,
    pub coding: Coding,
    pub data: &'a [u8],
    pub transparency: Transparency<'a>,
}

pub enum Colours<'a> {
    Device(Space),
    /// A colour profile that [`super::icc::usable`] has passed for this space.
    Profiled(Space, &'a [u8]),
    /// Three bytes an entry.
    Palette(&'a [u8]),
}

#[derive(Debug, Clone, Copy)]
pub enum Coding {
    /// A whole JPEG file. `transform` says whether three components are YCbCr where the file itself leaves it open;
    /// `inverted` that 255 means no ink.
    Dct { transform: Option<bool>, inverted: bool },
    /// The zlib stream of a PNG without interlacing.
    PngRows,
}

pub enum Transparency<'a> {
    None,
    /// Samples in these ranges, low and high for each component, are not painted.
    Key(Vec<i32>),
    /// A PNG zlib stream of grey samples with this many bits; 0 is clear.
    Mask {
        bits: u8,
        data: &'a [u8],
    },
}

/// Writes the document. Fails only for streams that PDF cannot express.
pub fn write(picture: &Picture<'_>, placement: &Placement) -> Result<Vec<u8>, ConvertError> {
    let mask = if let Transparency::Mask { data, .. } = picture.transparency { data } else { &[] };
    let profile = if let Colours::Profiled(_, profile) = picture.colours { profile } else { &[] };
    for data in [picture.data, mask, profile] {
        if i32::try_from(data.len()).is_err() {
            return Err(ConvertError::PdfTooLarge { bytes: data.len() });
        }
    }
    let mut pdf = Pdf::with_capacity(picture.data.len() + mask.len() + profile.len() + SKELETON);
    pdf.catalog(CATALOG).pages(PAGES);
    pdf.pages(PAGES).kids([PAGE]).count(1);
    pdf.document_info(INFO).producer(TextStr(concat!("pdfmagic ", env!("CARGO_PKG_VERSION"))));
    write_page(&mut pdf, placement);
    write_picture(&mut pdf, picture);
    if let Transparency::Mask { bits, data } = picture.transparency {
        let mut image = pdf.image_xobject(MASK, data);
        dimensions(&mut image, picture.width, picture.height, bits);
        image.color_space().device_gray();
        png_rows(&mut image, 1, bits, picture.width);
    }
    if let Colours::Profiled(space, profile) = picture.colours {
        let mut stream = pdf.icc_profile(PROFILE, profile);
        stream.n(space.components() as i32);
        match space {
            Space::Gray => stream.alternate().device_gray(),
            Space::Rgb => stream.alternate().device_rgb(),
            Space::Cmyk => stream.alternate().device_cmyk(),
        };
    }
    Ok(pdf.finish())
}

fn write_page(pdf: &mut Pdf, placement: &Placement) {
    let mut page = pdf.page(PAGE);
    page.parent(PAGES).contents(CONTENT);
    page.media_box(Rect::new(0.0, 0.0, placement.width as f32, placement.height as f32));
    if placement.user_unit > 1.0 {
        page.user_unit(placement.user_unit as f32);
    }
    page.resources().x_objects().pair(PICTURE_NAME, PICTURE);
    page.finish();
    let mut content = Content::new();
    content.save_state().transform(placement.matrix).x_object(PICTURE_NAME).restore_state();
    pdf.stream(CONTENT, &content.finish());
}

fn write_picture(pdf: &mut Pdf, picture: &Picture<'_>) {
    let mut image = pdf.image_xobject(PICTURE, picture.data);
    dimensions(&mut image, picture.width, picture.height, picture.bits);
    let components = match picture.colours {
        Colours::Device(space) => {
            match space {
                Space::Gray => image.color_space().device_gray(),
                Space::Rgb => image.color_space().device_rgb(),
                Space::Cmyk => image.color_space().device_cmyk(),
            }
            space.components()
        }
        Colours::Profiled(space, _) => {
            image.color_space().icc_based(PROFILE);
            space.components()
        }
        Colours::Palette(entries) => {
            let last = (entries.len() / 3).saturating_sub(1) as i32;
            image.color_space().indexed(Name(b"DeviceRGB"), last, entries);
            1
        }
    };
    match picture.coding {
        Coding::Dct { transform, inverted } => {
            image.filter(Filter::DctDecode);
            if let Some(transform) = transform {
                image.decode_parms().color_transform(transform);
            }
            if inverted {
                image.decode([1.0, 0.0].repeat(components));
            }
        }
        Coding::PngRows => png_rows(&mut image, components, picture.bits, picture.width),
    }
    match &picture.transparency {
        Transparency::None => {}
        Transparency::Key(ranges) => {
            image.color_mask(ranges.iter().copied());
        }
        Transparency::Mask { .. } => {
            image.s_mask(MASK);
        }
    }
}

fn dimensions(image: &mut ImageXObject<'_>, width: u32, height: u32, bits: u8) {
    image.width(width as i32).height(height as i32).bits_per_component(i32::from(bits));
}

/// PDF's predictors 10 to 15 are PNG's filters, each row with its own type byte in front (ISO 32000-1, 7.4.4.4).
fn png_rows(image: &mut ImageXObject<'_>, components: usize, bits: u8, width: u32) {
    image.filter(Filter::FlateDecode);
    image
        .decode_parms()
        .predictor(Predictor::PngOptimum)
        .colors(components as i32)
        .bits_per_component(i32::from(bits))
        .columns(width as i32);
}
