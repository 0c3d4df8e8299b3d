//! An HTTP service that turns an image into a PDF, and the conversion itself as a library.
//!
//! - [`convert`]: JPEG or PNG bytes to PDF bytes; pure, bounded, no I/O.
//! - [`service`]: the HTTP server around it: limits, results, metrics, draining.
//! - [`command`]: what the `pdfmagic` program does with its arguments.
//!
//! ```
//! let mut png = Vec::new();
//! let mut encoder = png::Encoder::new(&mut png, 2, 1);
//! encoder.set_color(png::ColorType::Grayscale);
//! encoder.write_header()?.write_image_data(&[0, 255])?;
//!
//! let pdf = pdfmagic::convert::convert(&png, &pdfmagic::convert::Limits::default())?;
//! assert!(pdf.starts_with(b"%PDF-1.7"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod command;
pub mod convert;
pub mod service;
