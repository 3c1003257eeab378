//! The `rectify` command.
#![forbid(unsafe_code)]

fn main() {}
