//! Users: signing in, watching each other, and having their connections ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Hub;
use super::app::AppId;
use super::ids::SocketId;
use super::outbox::{Event, Outbox, Verifier, Wire};
use super::refusal::Refusal;
use crate::proto::message::{self, SignIn, UserData};

/// A user of an application. Users who are not online are kept while somebody watches them.
#[derive(Debug, Default)]
pub(super) struct User {
    /// The sessions that are signed in as this user.
    pub(super) sessions: BTreeSet<u32>,
    /// The sessions that want to know whether there are any.
    pub(super) watchers: BTreeSet<u32>,
    /// Until when the user is online without a session (see `seats`).
    pub(super) kept_until: Option<u64>,
}

impl User {
    pub(super) fn is_online(&self) -> bool {
        !self.sessions.is_empty() || self.kept_until.is_some()
    }
}

/// Who a session is signed in as.
#[derive(Debug)]
pub(super) struct SignedIn {
    pub(super) id: Arc<str>,
    /// JSON.
    pub(super) info: Option<Box<str>>,
    pub(super) watchlist: Box<[Arc<str>]>,
}

impl<C: Copy, W: Wire> Hub<C, W> {
    /// `pusher:signin`
    pub(super) fn sign_in<V: Verifier, O: Outbox<Conn = C>>(
        &mut self,
        index: u32,
        request: &SignIn<'_>,
        verifier: &V,
        out: &mut O,
    ) -> Result<(), Refusal> {
        let mut user = self.check_sign_in(index, request, verifier)?;
        let app = self.sessions[index].app;
        let longest = self.apps[app.0 as usize].config.limits.max_watchlist as usize;
        let cut = user.watchlist.len() > longest;
        user.watchlist.truncate(longest);
        // Signing in again as the same user renews what is known of the user, and is no coming or going.
        let again = self.sessions[index].user.take();
        if let Some(before) = &again {
            self.unwatch(app, index, &before.watchlist);
        }
        let id = again.map_or_else(|| user.id.as_str().into(), |before| before.id);
        self.set_online(app, index, &id, out);
        self.reply(index, message::signin_success(&request.user_data), out);
        if cut {
            self.refuse(index, Refusal::WatchlistTooLong, out);
        }
        let watchlist = self.watch(app, index, &user.watchlist, out);
        let info = user.user_info.map(String::into_boxed_str);
        let session = &mut self.sessions[index];
        session.authorized = true;
        session.user = Some(Box::new(SignedIn { id, info, watchlist }));
        Ok(())
    }

    fn check_sign_in<V: Verifier>(
        &self,
        index: u32,
        request: &SignIn<'_>,
        verifier: &V,
    ) -> Result<UserData, Refusal> {
        let session = &self.sessions[index];
        let config = &self.apps[session.app.0 as usize].config;
        let limits = &config.limits;
        if !limits.sign_in {
            return Err(Refusal::SignInDisabled);
        }
        let socket_id = SocketId { tag: session.tag, index }.to_string();
        if !verifier.user(config, &socket_id, &request.user_data, &request.auth) {
            return Err(Refusal::UserUnauthorized);
        }
        let user = message::parse_user_data(&request.user_data).map_err(|_| Refusal::InvalidUserData)?;
        let too_long = |id: &str| id.chars().count() > limits.max_user_id as usize;
        if too_long(&user.id) {
            return Err(Refusal::UserIdTooLong);
        }
        if user.user_info.as_ref().is_some_and(|info| info.len() > limits.max_user_info as usize) {
            return Err(Refusal::UserInfoTooLarge);
        }
        if user.watchlist.iter().any(|id| too_long(id)) {
            return Err(Refusal::InvalidUserData);
        }
        if session.user.as_ref().is_some_and(|before| *before.id != *user.id) {
            return Err(Refusal::AlreadySignedIn);
        }
        Ok(user)
    }

    /// Forgets whom the session is signed in as, and tells those who watch.
    pub(super) fn sign_out<O: Outbox<Conn = C>>(&mut self, index: u32, out: &mut O) {
        let session = &mut self.sessions[index];
        let app = session.app;
        let Some(was) = session.user.take() else { return };
        self.unwatch(app, index, &was.watchlist);
        let state = &mut self.apps[app.0 as usize];
        let Some(user) = state.users.get_mut(&was.id) else { return };
        user.sessions.remove(&index);
        if !user.is_online() {
            self.set_offline(app, &was.id, out);
        }
    }

    /// Tells those who watch the user, who is online no more.
    pub(super) fn set_offline<O: Outbox<Conn = C>>(&mut self, app: AppId, id: &str, out: &mut O) {
        self.apps[app.0 as usize].online -= 1;
        self.tell_watchers(app, id, &message::watchlist_events(&[], &[id]), out);
        self.forget_user(app, id);
    }

    /// Ends all connections of the user and returns how many there were. The clients do not come back by themselves.
    pub fn terminate_user<O: Outbox<Conn = C>>(
        &mut self,
        now: u64,
        app: AppId,
        user: &str,
        out: &mut O,
    ) -> usize {
        let Some(known) = self.apps[app.0 as usize].users.get(user) else { return 0 };
        let sessions: Vec<u32> = known.sessions.iter().copied().collect();
        for &session in &sessions {
            self.close(now, session, Refusal::ConnectionsTerminated, out);
        }
        sessions.len()
    }

    fn set_online<O: Outbox<Conn = C>>(&mut self, app: AppId, index: u32, id: &Arc<str>, out: &mut O) {
        let state = &mut self.apps[app.0 as usize];
        let user = state.users.entry(id.clone()).or_default();
        let first = !user.is_online();
        user.sessions.insert(index);
        if user.kept_until.take().is_some() {
            self.seats.forget();
        }
        if first {
            state.online += 1;
            self.tell_watchers(app, id, &message::watchlist_events(&[id], &[]), out);
        }
    }

    /// Watches the users for the session and tells it which of them are online now.
    fn watch<O: Outbox<Conn = C>>(
        &mut self,
        app: AppId,
        index: u32,
        ids: &[String],
        out: &mut O,
    ) -> Box<[Arc<str>]> {
        let users = &mut self.apps[app.0 as usize].users;
        let (mut watched, mut online, mut offline) = (Vec::with_capacity(ids.len()), Vec::new(), Vec::new());
        for id in ids {
            let id: Arc<str> =
                users.get_key_value(id.as_str()).map_or_else(|| id.as_str().into(), |(k, _)| k.clone());
            let user = users.entry(id.clone()).or_default();
            if user.watchers.insert(index) {
                if user.is_online() { &mut online } else { &mut offline }.push(id.clone());
                watched.push(id);
            }
        }
        if !watched.is_empty() {
            let texts = |ids: &[Arc<str>]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>();
            let (online, offline) = (texts(&online), texts(&offline));
            let online: Vec<&str> = online.iter().map(String::as_str).collect();
            let offline: Vec<&str> = offline.iter().map(String::as_str).collect();
            self.reply(index, message::watchlist_events(&online, &offline), out);
        }
        watched.into_boxed_slice()
    }

    fn unwatch(&mut self, app: AppId, index: u32, watchlist: &[Arc<str>]) {
        for id in watchlist {
            if let Some(user) = self.apps[app.0 as usize].users.get_mut(id) {
                user.watchers.remove(&index);
                self.forget_user(app, id);
            }
        }
    }

    /// Frees a user who is neither online nor watched.
    fn forget_user(&mut self, app: AppId, id: &str) {
        let users = &mut self.apps[app.0 as usize].users;
        if users.get(id).is_some_and(|user| !user.is_online() && user.watchers.is_empty()) {
            users.remove(id);
            if users.capacity() > 64 && users.len() * 4 < users.capacity() {
                users.shrink_to(users.len() * 2);
            }
        }
    }

    fn tell_watchers<O: Outbox<Conn = C>>(&mut self, app: AppId, id: &str, json: &str, out: &mut O) {
        let state = &mut self.apps[app.0 as usize];
        let Some(user) = state.users.get(id) else { return };
        let event = Event::new(json.to_owned(), None);
        for &watcher in &user.watchers {
            let session = &self.sessions[watcher];
            out.send(session.conn, event.frame::<W>(session.transport));
            state.counters.messages_out += 1;
        }
    }
}
