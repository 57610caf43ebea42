//! What tells one file of a log from another, however it is named and stored: a fingerprint of its first record.

/// So many bytes of a file tell it from others: the time in its first record alone mostly does.
pub(super) const HEAD: usize = 1024;

/// FNV-1a with 64 bits. It is part of cursors, which outlive programs: it never changes.
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The fingerprint of a file that begins with `head`: of its first line, or of as much as there is of it. At most
/// [`HEAD`] bytes count.
pub(crate) fn fingerprint(head: &[u8]) -> u64 {
    let head = &head[..head.len().min(HEAD)];
    let line = head.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    line.iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts_and_nothing_else() {
        let long = "x".repeat(HEAD);
        for (head, other, is_same) in [
            ("a\n", "a\nb\n", true),
            ("a\n", "b\n", false),
            ("a", "a\n", false),
            (&*long, &*format!("{long}x\n"), true),
        ] {
            let (head, other) = (fingerprint(head.as_bytes()), fingerprint(other.as_bytes()));
            assert_eq!(head == other, is_same);
        }
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"a"), 0xaf63_dc4c_8601_ec8c, "as the authors of FNV give it");
    }
}
