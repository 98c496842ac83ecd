//! The echo server itself, which the tests run too: what comes in as a message goes out as one.

use std::io;

use evenkeel::net::{Limits, ListenOptions, ListenerId};
use evenkeel::{Conn, Flow, Handle, Handler};
use evenkeel_hub::proto::head::{self, HeadReader};
use evenkeel_hub::proto::ws::{self, Decoder, Event, Upgrade};

/// The codec's limits, raised to what the suite sends.
const MESSAGES: ws::Limits = ws::Limits { max_message: 64 << 20, max_fragments: u32::MAX };

/// Serves at an address.
///
/// # Errors
/// The kernel's, such as an address in use.
pub(crate) fn listen(handle: &Handle, address: &str) -> io::Result<ListenerId> {
    let mut limits = Limits::default();
    limits.max_queue_bytes = 256 << 20;
    limits.max_queue_messages = 1 << 20;
    handle.pool(limits).listen(address, &ListenOptions::default(), |_peer| Echo {
        handshake: Some(HeadReader::new()),
        decoder: Decoder::new(),
        scratch: Vec::new(),
    })
}

struct Echo {
    /// Until the request is complete.
    handshake: Option<HeadReader>,
    decoder: Decoder,
    scratch: Vec<u8>,
}

impl Handler for Echo {
    fn on_data(&mut self, conn: &mut Conn<'_>, mut bytes: &[u8]) {
        let mut out = Vec::new();
        let upgraded = self.handshake(&mut bytes, &mut out);
        if upgraded {
            self.echo(bytes, &mut out);
        }
        let flow = conn.write(&out);
        if self.decoder.is_finished() || (!upgraded && !out.is_empty()) {
            conn.close();
        } else if flow == Flow::Hold {
            conn.pause();
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        conn.resume();
    }
}

impl Echo {
    /// Whether the handshake is over. A request that is refused has its answer in `out`.
    fn handshake(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> bool {
        let Some(reader) = &mut self.handshake else { return true };
        let upgrade = match reader.next(input, &head::Limits::default()) {
            Ok(None) => return false,
            Ok(Some(head)) => match Upgrade::from_head(&head) {
                Ok(upgrade) => {
                    upgrade.respond(None, out);
                    Ok(())
                }
                Err(error) => Err(error.response()),
            },
            Err(error) => Err(error.response()),
        };
        match upgrade {
            Ok(()) => self.handshake = None,
            Err(refusal) => out.extend(refusal),
        }
        self.handshake.is_none()
    }

    fn echo(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        loop {
            match self.decoder.next(&mut input, &MESSAGES, &mut self.scratch) {
                Ok(None) => return,
                Ok(Some(Event::Text(text))) => ws::text(text, out),
                Ok(Some(Event::Binary(data))) => ws::binary(data, out),
                Ok(Some(Event::Ping(data))) => ws::pong(data, out),
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close { code, .. })) => ws::close(code, "", out),
                Err(error) => ws::close(Some(error.close_code()), &error.to_string(), out),
            }
        }
    }
}
