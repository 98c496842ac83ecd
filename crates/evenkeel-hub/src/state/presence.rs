//! The members of one presence channel: users, each with one or more connections.

use std::collections::HashMap;
use std::sync::Arc;

use super::ids::Keyed;
use super::slab::Slab;

#[derive(Debug)]
pub(super) struct Presence {
    users: Slab<PresentUser>,
    by_id: HashMap<Arc<str>, u32, Keyed>,
    /// The user of each connection, in the order of the channel's member list and kept in step with it.
    of: Vec<u32>,
}

#[derive(Debug)]
struct PresentUser {
    id: Arc<str>,
    /// What the first of the user's connections brought along: JSON.
    info: Box<str>,
    connections: u32,
}

/// Who joins a presence channel.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) info: String,
}

impl Presence {
    pub(super) fn new(keyed: &Keyed) -> Presence {
        Presence { users: Slab::new(), by_id: HashMap::with_hasher(keyed.clone()), of: Vec::new() }
    }

    /// Adds a connection at the end of the list and returns whether it is its user's first.
    pub(super) fn join(&mut self, who: &Identity) -> bool {
        if let Some(&user) = self.by_id.get(who.id.as_str()) {
            self.users[user].connections += 1;
            self.of.push(user);
            return false;
        }
        let id: Arc<str> = who.id.as_str().into();
        let user = PresentUser { id: id.clone(), info: who.info.as_str().into(), connections: 1 };
        let key = self.users.insert(user);
        self.by_id.insert(id, key.index);
        self.of.push(key.index);
        true
    }

    /// Takes out the connection at `position`; the last one moves there. Returns the user's id if it was the user's last.
    pub(super) fn leave(&mut self, position: u32) -> Option<Arc<str>> {
        let user = self.of.swap_remove(position as usize);
        super::slab::shrink(&mut self.of);
        self.users[user].connections -= 1;
        if self.users[user].connections > 0 {
            return None;
        }
        let gone = self.users.remove(user)?;
        self.by_id.remove(&gone.id);
        Some(gone.id)
    }

    /// The id of the user whose connection is at `position`.
    pub(super) fn user_at(&self, position: u32) -> Arc<str> {
        self.users[self.of[position as usize]].id.clone()
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn user_count(&self) -> usize {
        self.users.len()
    }

    /// The users' ids and infos.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let slab = &self.users;
        // A slab's iterator does not clone; its places do.
        (0..u32::MAX).map_while(move |i| slab.place(i)).flatten().map(|user| (&*user.id, &*user.info))
    }
}
