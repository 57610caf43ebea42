//! `podlog-fuzz [TARGET…]`: fuzzes for a while, and keeps what breaks something.

use std::{
    collections::HashSet,
    fs,
    io::Write,
    panic,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use podlog_fuzz::{TARGETS, Target, mutate::mutate};
use rand::{SeedableRng, rngs::StdRng};

/// Inputs of one target that are kept in memory.
const MAX_CORPUS: usize = 4096;
/// An input that takes longer is as good as one that panics.
const MAX_TIME: Duration = Duration::from_secs(20);

#[derive(Parser)]
#[command(about = "Fuzzes podlog's parsers and its reader")]
struct Arguments {
    /// Which targets; all of them without.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Where chance begins; another one each time without.
    #[arg(long)]
    seed: Option<u64>,
    /// A folder for each target, with inputs to begin with; findings are put beside them.
    #[arg(long, default_value = "fuzz/corpus")]
    corpus: PathBuf,
    /// Adds inputs that went a new way to the corpus.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("podlog-fuzz: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<usize> {
    for name in &arguments.targets {
        anyhow::ensure!(TARGETS.iter().any(|target| target.name == name), "no target {name}");
    }
    let seed = arguments.seed.unwrap_or_else(rand::random);
    say(&format!("seed {seed}"));
    let is_wanted = |target: &&Target| {
        arguments.targets.is_empty() || arguments.targets.iter().any(|name| name == target.name)
    };
    let mut broken = 0;
    for target in TARGETS.iter().filter(is_wanted) {
        broken += usize::from(fuzz(target, arguments, seed)?.is_some());
    }
    Ok(broken)
}

/// Returns what breaks the target, if something was found.
fn fuzz(target: &Target, arguments: &Arguments, seed: u64) -> anyhow::Result<Option<Vec<u8>>> {
    let folder = arguments.corpus.join(target.name);
    let mut corpus = load(&folder)?;
    let (known, mut rng) = (corpus.len(), StdRng::seed_from_u64(seed));
    let deadline = Instant::now() + Duration::from_secs(arguments.seconds);
    let (mut ways, mut runs) = (HashSet::new(), 0_u64);
    let mut next = corpus.clone();
    loop {
        let input = next.pop().unwrap_or_else(|| mutate(&mut rng, &corpus, target.dictionary));
        runs += 1;
        match judge(target, &input) {
            Err(why) => {
                let path = save(&folder, "broken", &input)?;
                say(&format!("{}: {why}\n  {}", target.name, path.display()));
                return Ok(Some(input));
            }
            Ok(way) if ways.insert(way) && corpus.len() < MAX_CORPUS && runs > known as u64 => {
                if arguments.keep {
                    save(&folder, "way", &input)?;
                }
                corpus.push(input);
            }
            Ok(_) => {}
        }
        if Instant::now() > deadline && next.is_empty() {
            say(&format!("{}: {runs} runs, {} ways, {known} inputs to begin with", target.name, ways.len()));
            return Ok(None);
        }
    }
}

/// How it went, or what is wrong.
fn judge(target: &Target, input: &[u8]) -> Result<u64, String> {
    let begin = Instant::now();
    let way = panic::catch_unwind(|| (target.run)(input)).map_err(|_| "it panics".to_owned())?;
    if begin.elapsed() > MAX_TIME { Err(format!("it takes {:?}", begin.elapsed())) } else { Ok(way) }
}

/// All inputs of a folder, which may be missing.
fn load(folder: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    Ok(paths.iter().map(fs::read).collect::<std::io::Result<_>>()?)
}

fn save(folder: &Path, kind: &str, input: &[u8]) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = folder.join(format!("{kind}-{hash:016x}"));
    fs::write(&path, input)?;
    Ok(path)
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
