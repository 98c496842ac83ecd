//! The HTTP API's broker: the state, on its own loop.

use std::rc::Rc;

use super::Server;
use super::home::Home;
use crate::api::types::{Attributes, Broker, CachedEvent, ChannelState, Event, Info, Published, Refusal};
use crate::state;

/// The server, as the HTTP API sees it.
pub(super) struct Hub<'a> {
    pub(super) server: &'a Rc<Server>,
    pub(super) home: &'a Home,
}

impl Hub<'_> {
    fn app(&self, id: &str) -> Result<state::AppId, Refusal> {
        self.home.state.borrow().app_by_id(id).ok_or_else(|| refused(state::Refusal::UnknownApp))
    }
}

/// The hub's refusal in the API's terms. Those that ask for patience are told apart, the rest are the caller's fault.
fn refused(refusal: state::Refusal) -> Refusal {
    match refusal.http_status() {
        429 => Refusal::RateLimited { retry_after: 1 },
        503 => Refusal::Overloaded { retry_after: 1 },
        _ => Refusal::Invalid { label: refusal.name(), message: refusal.message().to_owned() },
    }
}

fn info(info: Info) -> state::Info {
    state::Info {
        user_count: info.user_count,
        subscription_count: info.subscription_count,
        cache: info.cache,
    }
}

fn attributes(state: &state::ChannelState) -> Attributes {
    Attributes {
        user_count: state.user_count.map(|n| n as u64),
        subscription_count: state.subscription_count.map(|n| n as u64),
    }
}

impl Broker for Hub<'_> {
    fn publish(&mut self, app: &str, events: &[Event<'_>]) -> Result<Vec<Published>, Refusal> {
        let app = self.app(app)?;
        if self.server.is_overloaded() {
            self.server.refuse("loop_overloaded", &[]);
            return Err(Refusal::Overloaded { retry_after: 1 });
        }
        let channels: Vec<Vec<&str>> =
            events.iter().map(|event| event.channels.iter().map(String::as_str).collect()).collect();
        // Asking for the user count of other than presence channels means those that have one.
        let batch: Vec<_> = events
            .iter()
            .zip(&channels)
            .map(|(event, channels)| state::Publication {
                name: &event.name,
                channels,
                data: &event.data,
                socket_id: event.except.as_deref(),
                info: info(event.info),
            })
            .collect();
        let now = self.server.now();
        let states = self
            .server
            .with_state(self.home, |hub, out| hub.publish_batch(now, app, &batch, out))
            .map_err(refused)?;
        let mut states = states.iter();
        let published = events.iter().map(|event| {
            let of_event = if event.info.is_empty() { 0 } else { event.channels.len() };
            Published { attributes: states.by_ref().take(of_event).map(attributes).collect() }
        });
        Ok(published.collect())
    }

    fn channels(&self, app: &str, prefix: &str, wanted: Info) -> Result<Vec<(String, Attributes)>, Refusal> {
        let (app, now) = (self.app(app)?, self.server.now());
        let states = self.home.state.borrow().channels(now, app, prefix, info(wanted));
        let states = states.map_err(|refusal| self.counted(app, refusal))?;
        Ok(states.into_iter().map(|state| (state.name.to_string(), attributes(&state))).collect())
    }

    fn channel(&self, app: &str, channel: &str, wanted: Info) -> Result<ChannelState, Refusal> {
        let (app, now) = (self.app(app)?, self.server.now());
        let state = self.home.state.borrow().channel(now, app, channel, info(wanted));
        let state = state.map_err(|refusal| self.counted(app, refusal))?;
        let cache =
            state.cache.as_ref().map(|cached| CachedEvent { data: cached.data.clone(), ttl: cached.ttl_s });
        Ok(ChannelState { occupied: state.occupied, attributes: attributes(&state), cache })
    }

    fn users(&self, app: &str, channel: &str) -> Result<Vec<String>, Refusal> {
        let app = self.app(app)?;
        let users = self.home.state.borrow().presence_users(app, channel);
        users.map_err(|refusal| self.counted(app, refusal))
    }

    fn terminate(&mut self, app: &str, user: &str) -> usize {
        let Ok(app) = self.app(app) else { return 0 };
        let now = self.server.now();
        self.server.with_state(self.home, |hub, out| hub.terminate_user(now, app, user, out))
    }
}

impl Hub<'_> {
    /// Queries do not change the hub, so their refusals are counted here.
    fn counted(&self, app: state::AppId, refusal: state::Refusal) -> Refusal {
        refused(self.home.state.borrow_mut().count_refusal(Some(app), refusal))
    }
}
