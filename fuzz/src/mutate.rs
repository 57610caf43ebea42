//! New inputs from old ones.

use rand::{Rng, rngs::StdRng};

/// Inputs do not grow beyond this, in bytes.
pub const MAX_INPUT: usize = 8 * 1024;
/// Changes that one input goes through.
const MAX_CHANGES: u32 = 6;

/// Changes one of `corpus` in a few places; words come from `dictionary` and from the other inputs.
pub fn mutate(rng: &mut StdRng, corpus: &[Vec<u8>], dictionary: &[&str]) -> Vec<u8> {
    let mut input = pick(rng, corpus).cloned().unwrap_or_default();
    for _ in 0..rng.random_range(1..=MAX_CHANGES) {
        change(rng, &mut input, corpus, dictionary);
    }
    input.truncate(MAX_INPUT);
    input
}

fn pick<'a, T>(rng: &mut StdRng, all: &'a [T]) -> Option<&'a T> {
    if all.is_empty() { None } else { all.get(rng.random_range(0..all.len())) }
}

fn change(rng: &mut StdRng, input: &mut Vec<u8>, corpus: &[Vec<u8>], dictionary: &[&str]) {
    let at = rng.random_range(0..=input.len());
    match rng.random_range(0..9) {
        0 => input.insert(at, rng.random()),
        1 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        2 if at < input.len() => input[at] = rng.random(),
        3 => input.truncate(at),
        4 => drop(input.drain(at..(at + rng.random_range(0..16)).min(input.len()))),
        5 => {
            let end = (at + rng.random_range(0..64)).min(input.len());
            let copy = input[at..end].to_vec();
            let to = rng.random_range(0..=input.len());
            input.splice(to..to, copy);
        }
        6 => {
            if let Some(other) = pick(rng, corpus) {
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
        7 => input.extend((0..rng.random_range(0..32)).map(|_| rng.random::<u8>()).collect::<Vec<_>>()),
        _ => {
            if let Some(word) = pick(rng, dictionary) {
                input.splice(at..at, word.bytes());
            }
        }
    }
}
