//! Capture: one small process per container. It starts the container's program, drains the program's stdout and stderr
//! into the log file, and reports how the program ended.
//!
//! It is the program's parent and the reaper of all its descendants, so that nothing else has to live for a container to
//! be looked after, and so that no process of a container is left behind: when the first process ends, the rest of its
//! process tree is killed. The monitor is one `poll` loop; the copier has a thread for each pipe (see `readers`), and blocking file
//! I/O; other threads are the log's compressor, while it has work, and the writer of a log for which the program must not wait.
//!
//! Signals sent to capture itself are ignored. At the shutdown of a machine the programs get theirs too, and somebody has
//! to write down their last words; capture ends when they have. Only SIGKILL ends it, and its program with it.
//!
//! A new build of it takes over from an older one while the container runs: see `handover`.
//!
//! What it is told and what it tells is in the container's directory: see `podlog-container`.
//!
//! Left to others: log formats, files and rotation (`podlog-line`, `podlog-driver`), deciding what to run and when to stop
//! it (`podlog-kubelet`).

mod clients;
mod copier;
mod copying;
mod drain;
mod handover;
mod intake;
mod journal;
mod last_words;
mod launch;
mod memory;
mod outlet;
mod pace;
mod plumbing;
pub mod policy;
mod program;
mod queue;
mod readers;
mod respawn;
mod run;
mod shared;
mod stdio;
mod supervise;
mod sys;
mod text;
mod tree;
mod user;
mod view;

pub use run::Invocation;
