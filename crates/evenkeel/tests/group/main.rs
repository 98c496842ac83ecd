//! A group of loops: its life, its messages, and the ways to share a port.

#![allow(clippy::unwrap_used, unreachable_pub)]

#[macro_use]
mod support;

mod adopting;
mod bodies;
mod crossing;
mod life;
mod messages;
mod moving;
mod pools;
mod refusing;
mod sharing;
mod tables;
