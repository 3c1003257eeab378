//! Convolution with learned rectifiers (PReLU) on CPUs: hand-optimised kernels with the same bits everywhere,
//! and a trainer for the nets of He et al. 2015, "Delving Deep into Rectifiers".
#![forbid(unsafe_code)]

pub mod bench;
pub mod checkpoint;
pub mod conv;
pub mod data;
pub mod file;
pub mod hyper;
pub mod init;
pub mod memory;
pub mod model;
pub mod nn;
pub mod optim;
mod plot;
pub mod problem;
pub mod reproduce;
pub mod rng;
pub mod schedule;
pub mod study;
pub mod summary;
pub mod train;
pub mod views;

/// The compute kernels: slices in, slices out.
pub use rectify_kernels as kernels;

#[cfg(feature = "testing")]
pub use rectify_kernels::testing;

/// Runs the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
