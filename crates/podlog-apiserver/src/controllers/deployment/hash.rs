//! The name of a template: a hash that tells ReplicaSets apart.

use serde_json::Value;

/// Consonants and digits that make no words, as `k8s.io/apimachinery/pkg/util/rand` has them.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template, made different by `collisions`.
///
/// Kubernetes hashes its Go structures; we hash the canonical JSON. Only that it is stable matters.
pub(crate) fn template_hash(template: &Value, collisions: i64) -> String {
    let mut text = template.to_string();
    if collisions > 0 {
        text.push_str(&collisions.to_string());
    }
    let digits = fnv1a_32(text.as_bytes()).to_string();
    digits.bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
