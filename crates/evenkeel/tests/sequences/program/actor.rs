//! The handler of a program: it checks how it is called, and then does what the tape says.

use std::cell::Cell;
use std::rc::Rc;

use evenkeel::{CloseReason, Conn, ConnId, Handle, Handler};

use super::act::act;
use super::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was heard.
    New,
    Open,
    /// It was given away: a stream, or a parcel.
    Left,
    Closed,
}

pub struct Actor {
    world: Rc<World>,
    state: Cell<State>,
    id: Cell<Option<ConnId>>,
    /// It was given to a connection, so it has to hear its end.
    owed: Rc<Cell<bool>>,
}

impl Actor {
    pub fn new(world: &Rc<World>) -> Self {
        world.born();
        let owed = Rc::default();
        Actor { world: world.clone(), state: Cell::new(State::New), id: Cell::new(None), owed }
    }

    /// What says, from then on, that a connection has it.
    pub fn owed(&self) -> Rc<Cell<bool>> {
        self.owed.clone()
    }

    fn called(&mut self, name: &'static str, conn: &mut Conn<'_>) {
        let world = self.world.clone();
        let (id, live) = (conn.id(), conn.handle().is_open(conn.id()));
        let first = name == "on_open";
        let expected = if first { State::New } else { State::Open };
        if self.state.get() != expected || !live {
            world.broke(format!("{name} of one that is {:?}, open: {live}", self.state.get()));
        }
        if !first && self.id.get() != Some(id) {
            world.broke(format!("{name} comes for another connection"));
        }
        if first {
            self.state.set(State::Open);
            self.id.set(Some(id));
            world.know(id);
        }
        let life = world.life(id);
        if life.closing || name == "on_data" && (life.paused || life.ended) {
            world.broke(format!("{name} of one that is {life:?}"));
        }
        if name == "on_eof" {
            if life.ended {
                world.broke("the end comes twice".into());
            }
            world.change(id, |life| life.ended = true);
        }
        let state = &self.state;
        world.enter(name, || {
            for _ in 0..world.tape.below(4) {
                act(&world, Some((&mut *conn, &|| state.set(State::Left))), true);
            }
        });
    }
}

impl Handler for Actor {
    fn on_open(&mut self, conn: &mut Conn<'_>) {
        self.called("on_open", conn);
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        if bytes.is_empty() {
            self.world.broke("on_data comes without bytes".into());
        }
        self.called("on_data", conn);
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        self.called("on_eof", conn);
        if !self.world.tape.says() {
            self.world.change(conn.id(), |life| life.closing = true);
            conn.close();
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>) {
        self.called("on_drained", conn);
    }

    fn on_notify(&mut self, conn: &mut Conn<'_>) {
        self.called("on_notify", conn);
    }

    fn on_drain(&mut self, conn: &mut Conn<'_>) {
        self.called("on_drain", conn);
    }

    fn on_close(&mut self, id: ConnId, _: &CloseReason) {
        let world = self.world.clone();
        if matches!(self.state.get(), State::Left | State::Closed) {
            world.broke(format!("on_close of one that is {:?}", self.state.get()));
        }
        if self.id.get().is_some_and(|own| own != id) {
            world.broke("on_close comes with another id".into());
        }
        if world.h.is_open(id) || Handle::try_current().is_some_and(|h| h.is_open(id)) {
            world.broke("the id is not stale in on_close".into());
        }
        self.state.set(State::Closed);
        world.enter("on_close", || act(&world, None, true));
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.world.died();
        let ended = matches!(self.state.get(), State::Left | State::Closed);
        if !ended && (self.owed.get() || self.state.get() == State::Open) {
            self.world
                .broke(format!("one that is {:?} is dropped and has not heard its end", self.state.get()));
        }
        if !std::thread::panicking() {
            act(&self.world.clone(), None, false);
        }
    }
}
