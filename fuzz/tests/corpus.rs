//! Every input that ever mattered still goes well, and so do some new ones, the same each time.

use podlog_fuzz::{TARGETS, mutate::mutate};
use rand::{SeedableRng, rngs::StdRng};

const NEW_INPUTS: usize = 60;

#[test]
fn every_target_takes_its_corpus() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        let folder = root.join(target.name);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("{} has no corpus", target.name));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        let corpus: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).expect("a file")).collect();
        assert!(!corpus.is_empty(), "{} has an empty corpus", target.name);
        corpus.iter().for_each(|input| {
            (target.run)(input);
        });
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..NEW_INPUTS {
            (target.run)(&mutate(&mut rng, &corpus, target.dictionary));
        }
    }
}
