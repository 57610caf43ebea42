//! The whole way, from outside: the real binary, real processes, real TLS, stock kubectl.

mod attacks;
mod harness;
mod survival;
mod walk;
