//! The members of one presence channel: users, each with one or more connections, or with a seat that is kept for one
//! that is on its way back (see `seats`).

use std::collections::HashMap;
use std::sync::Arc;

use super::ids::Keyed;
use super::slab::{Key, Slab};

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
    /// Until when the user is present without a connection.
    kept_until: Option<u64>,
}

/// Who joins a presence channel.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) info: String,
}

/// A user of a presence channel that is put together from what was there before.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: Arc<str>,
    pub(super) info: Box<str>,
    pub(super) kept_until: Option<u64>,
}

/// What a connection that joins changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    /// The user was not present.
    pub(super) added: bool,
    /// A seat was kept for the user, and is not any more.
    pub(super) returned: bool,
}

impl Presence {
    pub(super) fn new(keyed: &Keyed) -> Presence {
        Presence { users: Slab::new(), by_id: HashMap::with_hasher(keyed.clone()), of: Vec::new() }
    }

    /// Adds a connection at the end of the list. It ends the wait of its user's kept seat, and its info replaces the
    /// one of a user who has no other connection.
    pub(super) fn join(&mut self, who: &Identity) -> Joined {
        if let Some(&index) = self.by_id.get(who.id.as_str()) {
            let user = &mut self.users[index];
            if user.connections == 0 && *user.info != *who.info {
                user.info = who.info.as_str().into();
            }
            user.connections += 1;
            let returned = user.kept_until.take().is_some();
            self.of.push(index);
            return Joined { added: false, returned };
        }
        let id: Arc<str> = who.id.as_str().into();
        let info = who.info.as_str().into();
        let user = PresentUser { id: id.clone(), info, connections: 1, kept_until: None };
        let key = self.users.insert(user);
        self.by_id.insert(id, key.index);
        self.of.push(key.index);
        Joined { added: true, returned: false }
    }

    /// Takes out the connection at `position`; the last one moves there. Returns the user's id if that ended the user's
    /// presence.
    pub(super) fn leave(&mut self, position: u32) -> Option<Arc<str>> {
        let user = self.of.swap_remove(position as usize);
        super::slab::shrink(&mut self.of);
        self.users[user].connections -= 1;
        self.remove_if_absent(user)
    }

    /// Keeps a seat for the user whose connection is at `position`: at least until that time, and not less than it was
    /// kept already. Returns the user's place and whether no seat was kept before, or nothing when nothing
    /// changed.
    pub(super) fn keep_seat(&mut self, position: u32, until: u64) -> Option<(Key, bool)> {
        let index = self.of[position as usize];
        let user = &mut self.users[index];
        let before = user.kept_until;
        if before.is_some_and(|kept| kept >= until) {
            return None;
        }
        user.kept_until = Some(until);
        Some((self.users.key(index), before.is_none()))
    }

    /// Whether the seat at `user` is kept until just that time.
    pub(super) fn is_kept_until(&self, user: Key, until: u64) -> bool {
        self.users.get(user).is_some_and(|user| user.kept_until == Some(until))
    }

    /// Ends the wait of a kept seat. Returns the user's id if that ended the user's presence.
    pub(super) fn give_up_seat(&mut self, user: Key) -> Option<Arc<str>> {
        self.users[user.index].kept_until = None;
        self.remove_if_absent(user.index)
    }

    /// The users in their places, without connections.
    ///
    /// Returns nothing when one user has two places.
    pub(super) fn from_places(keyed: &Keyed, places: Vec<Option<Place>>) -> Option<Presence> {
        let mut by_id = HashMap::with_capacity_and_hasher(places.len(), keyed.clone());
        let mut users = Vec::with_capacity(places.len());
        for (place, index) in places.into_iter().zip(0_u32..) {
            let user = place.map(|Place { id, info, kept_until }| PresentUser {
                id,
                info,
                connections: 0,
                kept_until,
            });
            if let Some(user) = &user
                && by_id.insert(user.id.clone(), index).is_some()
            {
                return None;
            }
            // A generation for each, so that those after them differ.
            users.push(user.map(|user| (index, user)));
        }
        let generation = users.len() as u32;
        Some(Presence { users: Slab::from_places(users, generation), by_id, of: Vec::new() })
    }

    /// Takes the users' connections, in the order of the channel's member list.
    ///
    /// Returns false when one is of no user, or a user has neither a connection nor a kept seat.
    pub(super) fn connect(&mut self, of: Vec<u32>) -> bool {
        for &index in &of {
            if self.users.at(index).is_none() {
                return false;
            }
            self.users[index].connections += 1;
        }
        self.of = of;
        self.users.iter().all(|(_, user)| user.connections > 0 || user.kept_until.is_some())
    }

    /// Every place up to the last that is taken: the user's id and info, and until when a seat is kept.
    pub(super) fn places(&self) -> impl Iterator<Item = Option<(&str, &str, Option<u64>)>> {
        self.users.places().map(|place| place.map(|(_, user)| (&*user.id, &*user.info, user.kept_until)))
    }

    /// The place of the user whose connection is at `position`.
    pub(super) fn place_at(&self, position: u32) -> u32 {
        self.of[position as usize]
    }

    /// The users with kept seats, and until when they are kept.
    pub(super) fn kept(&self) -> impl Iterator<Item = (Key, u64)> {
        self.users.iter().filter_map(|(key, user)| Some((key, user.kept_until?)))
    }

    fn remove_if_absent(&mut self, index: u32) -> Option<Arc<str>> {
        let user = &self.users[index];
        if user.connections > 0 || user.kept_until.is_some() {
            return None;
        }
        let gone = self.users.remove(index)?;
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

    /// Checks that the parts agree, with each other and with a channel of so many members.
    #[cfg(any(test, fuzzing))]
    pub(super) fn check(&self, members: usize) {
        assert_eq!(self.of.len(), members);
        assert_eq!(self.by_id.len(), self.users.len());
        for (key, user) in self.users.iter() {
            assert_eq!(self.by_id[&user.id], key.index);
            assert_eq!(self.of.iter().filter(|of| **of == key.index).count(), user.connections as usize);
            assert!(user.connections > 0 || user.kept_until.is_some(), "{} is not there", user.id);
        }
    }

    /// The users' ids and infos.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let slab = &self.users;
        // A slab's iterator does not clone; its places do.
        (0..u32::MAX).map_while(move |i| slab.place(i)).flatten().map(|user| (&*user.id, &*user.info))
    }
}
