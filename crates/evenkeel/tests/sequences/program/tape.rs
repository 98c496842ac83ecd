//! The bytes of a program, and what they mean as numbers.

use std::cell::Cell;
use std::time::Duration;

/// More than a program of interest is long.
const LONGEST: usize = 4_000;

pub struct Tape {
    bytes: Vec<u8>,
    at: Cell<usize>,
}

impl Tape {
    pub fn new(bytes: &[u8]) -> Self {
        Tape { bytes: bytes[..bytes.len().min(LONGEST)].to_vec(), at: Cell::new(0) }
    }

    /// The next byte. None for ever once the tape is at its end.
    pub fn next(&self) -> Option<u8> {
        let byte = self.bytes.get(self.at.get()).copied();
        self.at.set(self.at.get() + 1);
        byte
    }

    /// A number below `most`; 0 at the end.
    pub fn below(&self, most: usize) -> usize {
        usize::from(self.next().unwrap_or(0)) % most.max(1)
    }

    /// An answer; no at the end.
    pub fn says(&self) -> bool {
        self.below(2) == 1
    }

    /// How many bytes to send: mostly few, now and then more than sockets take.
    pub fn size(&self) -> usize {
        let byte = self.below(256);
        match byte % 8 {
            0..=3 => byte,
            4 | 5 => byte * 16,
            6 => byte * 300,
            _ => byte * 1_500,
        }
    }

    /// A time, with the edges of what is legal.
    pub fn time(&self) -> Duration {
        match self.below(8) {
            0 | 1 => Duration::ZERO,
            2 => Duration::from_nanos(1),
            3 | 4 => Duration::from_millis(1),
            5 => Duration::from_millis(3),
            6 => Duration::from_secs(1 << 20),
            _ => Duration::MAX,
        }
    }
}
