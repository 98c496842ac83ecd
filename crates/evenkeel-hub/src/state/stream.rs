//! SSE streams: subscribers that only listen, and that can come back without missing anything.
//!
//! # Recovery
//! Every event on a stream has an [`EventId`], which is a position in all channels of its application. A client that
//! comes back sends the last one that it saw, and the hub sends what the stream's channels have had since, in order. What
//! it cannot send it does not pass over in silence: for each channel that has had events, or may have had, which are no
//! longer kept, the stream gets an `evenkeel:gap` event, upon which a client fetches the channel's state afresh. An id
//! from a hub whose state was lost, of another application, or that is no id at all, is a gap in every channel.
//!
//! What a stream gets, in this order: `pusher:connection_established`; for each channel
//! `pusher_internal:subscription_succeeded`; the gaps; when it is new, the cached events of its cache channels, and when
//! it came back, the missed events; `evenkeel:caught_up`; then whatever happens. `caught_up` and all later events carry
//! ids, and so do the missed ones; the rest carry none, so that a client which is cut off while it catches up asks from
//! where it was. A stream that comes back has a new socket id, so the missed events include those that its client caused
//! and that were kept from it while it was there.

use std::sync::Arc;

use super::Hub;
use super::app::AppId;
use super::ids::EventId;
use super::outbox::{Event, Outbox, Transport, Verifier, Wire};
use super::refusal::Refusal;
use super::session::SessionId;
use crate::proto::channel::{Access, ChannelName};
use crate::proto::message;

/// One channel that a stream asks for.
#[derive(Clone, Copy, Debug)]
pub struct StreamChannel<'a> {
    /// The channel's name: public, private or encrypted. One named twice counts once.
    pub name: &'a str,
    /// The signature, for channels that need one.
    pub auth: Option<&'a str>,
}

/// A stream that asks to be served.
#[derive(Clone, Copy, Debug)]
pub struct StreamConnect<'a, C> {
    /// The application's key.
    pub key: &'a str,
    /// The channels, all of them: a stream's channels do not change.
    pub channels: &'a [StreamChannel<'a>],
    /// The `Last-Event-ID` that the client sent, whatever it is.
    pub last_event_id: Option<&'a str>,
    /// The server's handle.
    pub conn: C,
}

/// A stream that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Its session.
    pub session: SessionId,
    /// How many missed events were sent.
    pub replayed: usize,
    /// How many of its channels had a gap.
    pub gaps: usize,
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// Accepts a stream, sends what it missed and subscribes it to its channels.
    ///
    /// # Errors
    /// Refusals of connections and subscriptions, to be answered with their HTTP status: nothing has then been sent. One
    /// channel that is refused refuses the stream.
    pub fn connect_stream<V: Verifier, O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        request: &StreamConnect<'_, C>,
        verifier: &V,
        out: &mut O,
    ) -> Result<Connected, Refusal> {
        let app = self.admit(request.key)?;
        let (names, authorized) = self
            .check_stream(app, request, verifier)
            .map_err(|refusal| self.count_refusal(Some(app), refusal))?;
        let key = self.open(now, app, request.conn, Transport::Sse);
        self.sessions[key.index].authorized = authorized;
        self.greet(key, out);
        let mut channels = Vec::with_capacity(names.len());
        for name in names {
            let channel = self.channel_or_new(app, name);
            self.attach(key.index, channel);
            self.reply(key.index, message::subscription_succeeded(name.as_str(), "{}"), out);
            channels.push(channel);
        }
        let (replayed, gaps) = match request.last_event_id {
            Some(last) => self.recover(key.index, &channels, EventId::parse(last), out),
            None => {
                channels.iter().for_each(|&channel| self.send_cached(key.index, channel, out));
                (0, 0)
            }
        };
        let position = self.apps[app.0 as usize].position;
        let caught_up = Event::new(message::stream_caught_up(replayed, gaps == 0), Some(position));
        self.send_event(key.index, &caught_up, out);
        for channel in channels {
            self.count_changed(now, channel, out);
        }
        Ok(Connected { session: SessionId(key), replayed, gaps })
    }

    /// The stream's channels, each once, and whether one of them needed a signature.
    fn check_stream<'a, V: Verifier>(
        &self,
        app: AppId,
        request: &StreamConnect<'a, C>,
        verifier: &V,
    ) -> Result<(Vec<ChannelName<'a>>, bool), Refusal> {
        let config = &self.apps[app.0 as usize].config;
        let limits = &config.limits;
        if request.channels.len() > limits.max_channels_per_connection as usize {
            return Err(Refusal::TooManyChannels);
        }
        let (mut names, mut authorized) = (Vec::with_capacity(request.channels.len()), false);
        for asked in request.channels {
            let name = ChannelName::parse(asked.name, limits.max_channel_name as usize)?;
            if !name.kind().is_streamable() {
                return Err(Refusal::NotStreamable);
            }
            if name.kind().access != Access::Public {
                if !verifier.stream(config, asked.name, asked.auth.unwrap_or("")) {
                    return Err(Refusal::Unauthorized);
                }
                authorized = true;
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Err(Refusal::NoChannels);
        }
        // A stream cannot sign in later, and closing it would only make it come back.
        if limits.authorization_deadline > 0 && !authorized {
            return Err(Refusal::Unauthorized);
        }
        Ok((names, authorized))
    }

    /// Sends what the channels have had since `last`, gaps first, and returns how many of each.
    fn recover<O: Outbox<Conn = C>>(
        &mut self,
        index: u32,
        channels: &[u32],
        last: Option<EventId>,
        out: &mut O,
    ) -> (usize, usize) {
        let app = self.sessions[index].app;
        let position = self.apps[app.0 as usize].position;
        let last = last.filter(|id| id.epoch == position.epoch && id.sequence <= position.sequence);
        let (mut missed, mut gaps): (Vec<Arc<Event>>, Vec<Arc<str>>) = (Vec::new(), Vec::new());
        for &channel in channels {
            let channel = &self.channels[channel];
            let seen = last.map(|id| id.sequence);
            if seen.is_none_or(|seen| seen < channel.past.gone) {
                gaps.push(channel.name.clone());
            }
            // After a gap what is kept is sent all the same; without a position all of it would be old news.
            if let Some(seen) = seen {
                let events = &channel.past.events;
                let from = events.partition_point(|event| event.id.is_some_and(|id| id.sequence <= seen));
                missed.extend(events.range(from..).cloned());
            }
        }
        missed.sort_by_key(|event| event.id.map(|id| id.sequence));
        for name in &gaps {
            self.reply(index, message::stream_gap(name), out);
        }
        for event in &missed {
            self.send_event(index, event, out);
        }
        let counters = &mut self.apps[app.0 as usize].counters;
        counters.replayed += missed.len() as u64;
        counters.gaps += gaps.len() as u64;
        (missed.len(), gaps.len())
    }

    fn send_event<O: Outbox<Conn = C>>(&mut self, index: u32, event: &Event, out: &mut O) {
        let session = &self.sessions[index];
        out.send(session.conn, event.frame::<W>(session.transport));
        self.apps[session.app.0 as usize].counters.messages_out += 1;
    }
}
