//! The one binary: applets, flags, exit codes.

fn main() {}
