//! What two processes of a hub say to each other while one replaces the other: however it is cut, and back again.

use evenkeel_hub::fuzzing::{Said, read, write_back};

use crate::pieces::cuts;

/// Reads frames as each of the two.
pub fn run(bytes: &[u8]) {
    for old in [false, true] {
        let (said, error) = read(&[bytes], old);
        for pieces in cuts(bytes) {
            let (again, failed) = read(&pieces, old);
            assert_eq!(
                (&again, failed.is_some()),
                (&said, error.is_some()),
                "in pieces it is something else"
            );
        }
        assert_eq!(error.is_some(), frames(bytes).is_none_or(|frames| frames > said.len()), "{error:?}");
        let back: Vec<u8> = said
            .iter()
            .flat_map(|said| write_back(said, old).expect("what was read can be written"))
            .collect();
        let (again, error) = read(&[&back], old);
        assert!(error.is_none());
        assert_eq!(again, said);
        for said in &said {
            if let Said::State(state) = said {
                assert!(state.len() < bytes.len());
            }
        }
    }
}

/// How many whole frames there are, by their lengths alone; none when a length cannot be.
fn frames(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while let [a, b, c, d, _kind, rest @ ..] = bytes {
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        if length > 1 << 30 {
            return None;
        }
        let Some(rest) = rest.get(length..) else { break };
        count += 1;
        bytes = rest;
    }
    Some(count)
}
