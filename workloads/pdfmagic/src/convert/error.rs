//! What can be wrong with an image, in words for the person who sent it.

use std::fmt;

/// The two formats that are converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Jpeg,
    Png,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
        })
    }
}

/// Why an image was not converted. Nothing has been written when one of these is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The first bytes belong to neither format.
    #[error("this is neither a JPEG nor a PNG file, but {looks_like}; send one of those two")]
    NotAnImage { looks_like: &'static str },
    /// The file may be sound, but PDF has no place for what it holds.
    #[error("this {format} cannot become a PDF as it is: {what}; save it as an ordinary {format} first")]
    Unsupported { format: Format, what: String },
    /// Checked on the dimensions that the header states, before anything is allocated for them.
    #[error(
        "the image has {width} x {height} pixels, more than the limit of {limit} pixels; \
         send a smaller one, or raise the limit with --max-pixels"
    )]
    TooManyPixels { width: u32, height: u32, limit: u64 },
    /// Only pictures that must be held in memory as a whole (interlaced PNG) can meet this limit.
    #[error(
        "the interlaced PNG needs {needed} bytes when decoded, more than the limit of {limit}; \
         save it without interlacing, or raise the limit with --max-decoded-bytes"
    )]
    TooMuchMemory { needed: u64, limit: u64 },
    /// The file ends early, contradicts itself or fails its own checksums.
    #[error("the {format} is damaged: {what}")]
    Damaged { format: Format, what: String },
    /// The deadline of [`super::Limits`] passed.
    #[error(
        "the conversion did not finish in its time; send a smaller image, or raise the limit with --timeout"
    )]
    OutOfTime,
    /// A PDF stream's length must fit in 31 bits.
    #[error("the picture takes {bytes} bytes inside the PDF, more than the format's 2147483647")]
    PdfTooLarge { bytes: usize },
}

impl ConvertError {
    pub(crate) fn damaged(format: Format, what: impl Into<String>) -> Self {
        ConvertError::Damaged { format, what: what.into() }
    }

    pub(crate) fn unsupported(format: Format, what: impl Into<String>) -> Self {
        ConvertError::Unsupported { format, what: what.into() }
    }
}
