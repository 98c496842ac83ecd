//! Where one message ends and the next begins, for each kind of subscriber. Pure.

/// How messages are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Frames from a server: not masked.
    WebSocket,
    /// Records of an event stream; those without data are not messages.
    EventStream,
    /// So many bytes each.
    Fixed(usize),
}

impl Framing {
    /// The number of whole messages at the start of `bytes`, and the number of bytes that were looked at for good.
    pub(crate) fn count(self, bytes: &[u8]) -> (usize, usize) {
        let (mut messages, mut used) = (0, 0);
        while let Some((length, counts)) = self.first(&bytes[used..]) {
            used += length;
            messages += usize::from(counts);
        }
        (messages, used)
    }

    /// The length of the first whole unit, and whether it is a message.
    fn first(self, bytes: &[u8]) -> Option<(usize, bool)> {
        match self {
            Framing::Fixed(size) => (bytes.len() >= size).then_some((size, true)),
            Framing::EventStream => {
                let end = bytes.windows(2).position(|two| two == b"\n\n")? + 2;
                let data = bytes[..end].split(|b| *b == b'\n').any(|line| line.starts_with(b"data"));
                Some((end, data))
            }
            Framing::WebSocket => {
                let (head, length) = frame(bytes)?;
                (bytes.len() >= head + length).then(|| (head + length, bytes[0] & 0x0f == 1))
            }
        }
    }
}

/// The lengths of a frame's head and of its payload, as soon as they are known (RFC 6455, 5.2).
pub(crate) fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7f {
        126 => Some((4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into())),
        127 => Some((10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?).try_into().ok()?)),
        length => Some((2, length.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Vec<u8> {
        let mut frame = match length {
            0..126 => vec![0x81, length as u8],
            126..65536 => [&[0x81, 126][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[0x81, 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        frame.resize(frame.len() + length, b'x');
        frame
    }

    #[test]
    fn frames_of_every_length_are_counted_when_whole() {
        for length in [0, 1, 125, 126, 65535, 65536] {
            let one = text(length);
            assert_eq!(Framing::WebSocket.count(&one), (1, one.len()));
            assert_eq!(Framing::WebSocket.count(&one[..one.len() - 1]), (0, 0));
            let two = [&one[..], &one[..]].concat();
            assert_eq!(Framing::WebSocket.count(&two), (2, two.len()));
        }
        assert_eq!(Framing::WebSocket.count(&[0x89, 0, 0x81]), (0, 2), "a ping is no message");
    }

    #[test]
    fn records_count_when_they_have_data() {
        let bytes = b"retry: 3\n\n:\n\nid: 1\ndata: x\n\ndata: y";
        assert_eq!(Framing::EventStream.count(bytes), (1, bytes.len() - 7));
    }

    #[test]
    fn fixed_sizes_are_divided() {
        assert_eq!(Framing::Fixed(4).count(b"123456789"), (2, 8));
    }
}
