//! Names and values that open a stream, compressed (SPDY/3, 2.6.10).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// Bytes of headers once they are unpacked.
const MAX_HEADERS: usize = 64 << 10;

/// What both ends know beforehand: words, each behind its length, and then [`PHRASES`].
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age \
     allow authorization cache-control connection content-base content-encoding content-language content-length \
     content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since \
     if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
     proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning \
     www-authenticate method get status 200\u{a0}OK version HTTP/1.1 url public set-cookie keep-alive origin";
const PHRASES: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
     203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
     404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
     Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
     application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
     sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::new();
    for word in WORDS.split_ascii_whitespace().map(|word| word.replace('\u{a0}', " ")) {
        dictionary.extend(length(word.len()));
        dictionary.extend(word.as_bytes());
    }
    dictionary.extend(PHRASES.as_bytes());
    dictionary
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Names and values, names in lower case.
pub(crate) type Headers = Vec<(String, String)>;

/// The value of a header.
pub(crate) fn value<'a>(headers: &'a Headers, name: &str) -> &'a str {
    let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map_or("", |(_, value)| value)
}

/// Unpacks headers, one stream's after the other's: what came before is what the next are packed with.
pub(super) struct Unpacker(Decompress);

impl Unpacker {
    pub(super) fn new() -> Self {
        Unpacker(Decompress::new(true))
    }

    /// `None` for what is no headers.
    pub(super) fn unpack(&mut self, packed: &[u8]) -> Option<Headers> {
        parse(&self.inflate(packed)?)
    }

    fn inflate(&mut self, packed: &[u8]) -> Option<Vec<u8>> {
        let begin = self.0.total_in();
        let mut plain = Vec::with_capacity(1 << 10);
        loop {
            let read = usize::try_from(self.0.total_in() - begin).ok()?;
            let before = (read, plain.len());
            match self.0.decompress_vec(packed.get(read..)?, &mut plain, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).ok()?;
                    continue;
                }
                Err(_) => return None,
            }
            let read = usize::try_from(self.0.total_in() - begin).ok()?;
            if plain.len() > MAX_HEADERS {
                return None;
            }
            if plain.len() == plain.capacity() {
                plain.reserve(plain.len());
            } else if read == packed.len() || (read, plain.len()) == before {
                return (read == packed.len()).then_some(plain);
            }
        }
    }
}

/// Packs headers.
pub(super) struct Packer(Compress);

impl Packer {
    pub(super) fn new() -> Self {
        let mut packer = Compress::new(Compression::fast(), true);
        let known = packer.set_dictionary(&dictionary());
        debug_assert!(known.is_ok());
        Packer(packer)
    }

    pub(super) fn pack(&mut self, headers: &Headers) -> std::io::Result<Vec<u8>> {
        let mut plain = length(headers.len()).to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(length(text.len()));
            plain.extend(text.as_bytes());
        }
        let begin = self.0.total_in();
        let mut packed = Vec::with_capacity(plain.len() + 64);
        loop {
            let read = usize::try_from(self.0.total_in() - begin).map_err(std::io::Error::other)?;
            self.0.compress_vec(&plain[read..], &mut packed, FlushCompress::Sync)?;
            if packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(packed.len());
        }
    }
}

fn parse(mut plain: &[u8]) -> Option<Headers> {
    let count = take_length(&mut plain)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        headers.push((take_text(&mut plain)?.to_ascii_lowercase(), take_text(&mut plain)?));
    }
    Some(headers)
}

fn take_text(plain: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take_length(plain)?).ok()?;
    let (text, rest) = plain.split_at_checked(length)?;
    *plain = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

fn take_length(plain: &mut &[u8]) -> Option<u32> {
    let (length, rest) = plain.split_first_chunk::<4>()?;
    *plain = rest;
    Some(u32::from_be_bytes(*length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// By its Adler-32, which every peer names as soon as it has packed something.
    #[test]
    fn the_dictionary_is_that_of_the_specification() {
        assert_eq!(dictionary().len(), 1423);
        let mut packer = Compress::new(Compression::best(), true);
        assert_eq!(packer.set_dictionary(&dictionary()).unwrap(), 0xe3c6_a7c2);
    }

    #[test]
    fn headers_come_back_one_stream_after_the_other() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        let long = "x".repeat(5000);
        for sent in [
            headers(&[]),
            headers(&[("streamtype", "error"), ("port", "80"), ("requestid", "0")]),
            headers(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
            headers(&[("long", &long)]),
            headers(&[]),
        ] {
            assert_eq!(unpacker.unpack(&packer.pack(&sent).unwrap()), Some(sent));
        }
        assert_eq!(value(&headers(&[("port", "80")]), "Port"), "80");
    }

    /// Made by another implementation: Python's `zlib.compressobj(zdict=…)`, flushed after each.
    #[test]
    fn headers_of_others_are_understood() {
        let mut unpacker = Unpacker::new();
        for (packed, expected) in [
            (
                "78f9e3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff",
                headers(&[("streamtype", "error")]),
            ),
            (
                "02651c0c2960624ec90797d1c022bb084c5b18581800000000ffff",
                headers(&[("streamtype", "stdout"), ("port", "8080")]),
            ),
        ] {
            let digits = |at: usize| u8::from_str_radix(&packed[2 * at..2 * at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..packed.len() / 2).map(digits).collect();
            assert_eq!(unpacker.unpack(&bytes), Some(expected));
        }
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in
            [&b""[..], b"\x00", b"\x78", b"\xff\xff\xff\xff\xff", b"\x78\xbb\x00\x00\x00\x00\x01\x02\x03\x04"]
        {
            assert_eq!(Unpacker::new().unpack(garbage), None, "{garbage:?}");
        }
        // Few bytes that would become many more than headers have.
        let mut packer = Packer::new();
        let bomb = packer.pack(&headers(&[("bomb", &"0".repeat(10 << 20))])).unwrap();
        assert_eq!(Unpacker::new().unpack(&bomb), None);
    }
}
