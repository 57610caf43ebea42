//! Logs that were compressed on their way.

use std::io;

use bytes::Bytes;
use podlog_api::accept::LogCoding;
use zstd::stream::raw::{Decoder, Operation};

use crate::ClientError;

/// Bytes that are unpacked at once.
const STEP: usize = 64 << 10;
/// Largest window, as a power of two, that a server may ask us to hold.
const WINDOW_LOG_MAX: u32 = 23;

/// Turns what arrives into what was sent.
pub(super) enum Unpacker {
    /// It is the same.
    Plain,
    Zstd {
        decoder: Decoder<'static>,
        /// Whether a frame has begun and not ended.
        within: bool,
    },
}

impl Unpacker {
    /// The one for a `Content-Encoding`.
    pub(super) fn of(content_encoding: &str) -> Result<Self, ClientError> {
        match content_encoding {
            "" | "identity" => Ok(Unpacker::Plain),
            coding if coding == LogCoding::Zstd.name() => {
                let mut decoder = Decoder::new().map_err(|error| damaged(&error))?;
                let limit = zstd::zstd_safe::DParameter::WindowLogMax(WINDOW_LOG_MAX);
                decoder.set_parameter(limit).map_err(|error| damaged(&error))?;
                Ok(Unpacker::Zstd { decoder, within: false })
            }
            other => Err(ClientError::Broken(format!(
                "the server sends the log in the coding {other:?}, which was not asked for"
            ))),
        }
    }

    /// The bytes that were sent.
    ///
    /// # Errors
    /// When they are damaged.
    pub(super) fn unpack(&mut self, data: Bytes) -> Result<Bytes, ClientError> {
        match self {
            Unpacker::Plain => Ok(data),
            Unpacker::Zstd { decoder, within } => {
                unpack_zstd(decoder, within, &data).map(Bytes::from).map_err(|error| damaged(&error))
            }
        }
    }

    /// Checks that nothing is missing at the end.
    ///
    /// # Errors
    /// When something is.
    pub(super) fn end(&self) -> Result<(), ClientError> {
        match self {
            Unpacker::Zstd { within: true, .. } => Err(ClientError::Broken("unexpected EOF".into())),
            _ => Ok(()),
        }
    }
}

fn unpack_zstd(decoder: &mut Decoder<'_>, within: &mut bool, mut input: &[u8]) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    loop {
        let begin = unpacked.len();
        unpacked.resize(begin + STEP, 0);
        let status = decoder.run_on_buffers(input, &mut unpacked[begin..])?;
        unpacked.truncate(begin + status.bytes_written);
        input = &input[status.bytes_read..];
        *within = status.remaining != 0;
        if input.is_empty() && status.bytes_written < STEP {
            return Ok(unpacked);
        }
    }
}

fn damaged(error: &io::Error) -> ClientError {
    ClientError::Broken(format!("the log arrives damaged: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(log: &[u8]) -> Vec<u8> {
        log.chunks(70_000).flat_map(|chunk| zstd::bulk::compress(chunk, 1).unwrap()).collect()
    }

    #[test]
    fn frames_are_unpacked_however_they_are_cut() {
        let log: Vec<u8> =
            (0..100_000_u32).flat_map(u32::to_le_bytes).chain(std::iter::repeat_n(b'x', 300_000)).collect();
        let packed = frames(&log);
        for step in [7, 1000, packed.len()] {
            let mut unpacker = Unpacker::of("zstd").unwrap();
            let mut unpacked = Vec::new();
            for piece in packed.chunks(step) {
                unpacked.extend(unpacker.unpack(Bytes::copy_from_slice(piece)).unwrap());
            }
            assert!(unpacked == log, "{step}");
            assert!(unpacker.end().is_ok());
        }
    }

    #[test]
    fn a_cut_frame_is_no_end() {
        let packed = frames(b"a line\n");
        let mut unpacker = Unpacker::of("zstd").unwrap();
        unpacker.unpack(Bytes::copy_from_slice(&packed[..packed.len() - 2])).unwrap();
        assert_eq!(unpacker.end().unwrap_err().message(), "unexpected EOF");
        let mut unpacker = Unpacker::of("zstd").unwrap();
        let error = unpacker.unpack(Bytes::from_static(b"this is no frame")).unwrap_err().to_string();
        assert!(error.contains("arrives damaged"), "{error}");
        assert!(Unpacker::of("br").is_err());
        assert_eq!(Unpacker::of("").unwrap().unpack(Bytes::from_static(b"as is")).unwrap(), "as is");
    }
}
