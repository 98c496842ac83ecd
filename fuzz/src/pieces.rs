//! How an input is cut. The cuts follow from the input itself, so that an input is exactly what a peer would send, and
//! still says all about a run.

/// The input byte by byte, and in pieces of up to 40 bytes whose lengths follow from its content.
pub fn cuts(bytes: &[u8]) -> [Vec<&[u8]>; 2] {
    [bytes.chunks(1).collect(), uneven(bytes)]
}

fn uneven(mut bytes: &[u8]) -> Vec<&[u8]> {
    // FNV-1a, and then xorshift.
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    state |= 1;
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let longest = if state & 0x100 == 0 { 4 } else { 40 };
        let (piece, rest) = bytes.split_at(bytes.len().min(1 + (state % longest) as usize));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// The parts of an input that has several: what lies between its first `N - 1` zero bytes. Parts that are not there are
/// empty.
pub fn parts<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut parts = bytes.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}
