//! The old process: starts the new one, gives it everything, and is a front of it until its last client has left.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Child, Command as Program};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

use evenkeel::group::GroupListener;
use evenkeel::inherit::Succession;
use evenkeel::inherit::notify::State;
use evenkeel::net::Closing;

use super::channel::{Channel, Incoming};
use super::wire::{ApiReply, ApiRequest, Frame, OF_MANAGER, Reader, ToNew, ToOld, message, state};
use crate::server::Server;
use crate::server::crossing::Command;
use crate::server::drain::tell_manager;
use crate::server::home::Home;
use crate::server::outbox::Peer;

/// How long the new process may take until it serves.
const START: Duration = Duration::from_secs(60);

/// The program that replaces this one, as this one was started.
#[derive(Clone, Debug)]
pub(in super::super) struct Successor {
    pub(in super::super) program: PathBuf,
    pub(in super::super) arguments: Vec<std::ffi::OsString>,
}

/// The state is in the new process, or on its way there.
pub(in super::super) struct Elsewhere {
    channel: Rc<Channel>,
    /// The new process serves: there is no way back.
    committed: Cell<bool>,
    /// What was passed on before, to be done here if the new process fails.
    passed_on: RefCell<Vec<(u16, Vec<Command>)>>,
    /// Subscribers that have come since, whom the state here does not know.
    newcomers: RefCell<Vec<Peer>>,
    asked: RefCell<BTreeMap<u64, Rc<Asked>>>,
    next: Cell<u64>,
}

/// One request whose answer is awaited.
#[derive(Default)]
struct Asked {
    reply: RefCell<Option<ApiReply>>,
    over: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Asked {
    fn end(&self, reply: Option<ApiReply>) {
        *self.reply.borrow_mut() = reply;
        self.over.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Elsewhere {
    fn new(channel: Rc<Channel>) -> Elsewhere {
        Elsewhere {
            channel,
            committed: Cell::new(false),
            passed_on: RefCell::default(),
            newcomers: RefCell::default(),
            asked: RefCell::default(),
            next: Cell::new(0),
        }
    }

    /// Passes commands on.
    pub(in super::super) fn pass_on(&self, front: u16, commands: Vec<Command>) {
        let newcomers = commands.iter().filter_map(|command| match command {
            Command::Connect { peer, .. } | Command::Stream { peer, .. } => Some(*peer),
            Command::Message { .. } | Command::Leave { .. } => None,
        });
        self.newcomers.borrow_mut().extend(newcomers);
        let said = ToNew::Commands { front, commands };
        self.channel.send(message(&said));
        if let (false, ToNew::Commands { front, commands }) = (self.committed.get(), said) {
            self.passed_on.borrow_mut().push((front, commands));
        }
    }

    /// Has a request answered over there. None when the new process has failed or ended.
    pub(in super::super) async fn ask(&self, request: ApiRequest) -> Option<ApiReply> {
        let id = self.next.get();
        self.next.set(id + 1);
        let asked = Rc::new(Asked::default());
        self.asked.borrow_mut().insert(id, asked.clone());
        self.channel.send(message(&ToNew::Ask { id, request }));
        poll_fn(|cx| {
            if asked.over.get() {
                return Poll::Ready(asked.reply.borrow_mut().take());
            }
            asked.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Subscribers that have come since the state went. Some may have gone again.
    pub(in super::super) fn newcomers(&self) -> Vec<Peer> {
        self.newcomers.borrow().clone()
    }

    /// Has all clients brought over at once.
    pub(in super::super) fn hurry(&self) {
        self.channel.send(message(&ToNew::Hurry));
    }

    fn answered(&self, id: u64, reply: ApiReply) {
        if let Some(asked) = self.asked.borrow_mut().remove(&id) {
            asked.end(Some(reply));
        }
    }

    /// Nothing more comes from over there.
    fn end(&self) {
        self.channel.end();
        for asked in std::mem::take(&mut *self.asked.borrow_mut()).into_values() {
            asked.end(None);
        }
    }
}

/// The listeners, while their sockets are duplicated; they go back when this is dropped.
struct Listeners<'a> {
    server: &'a Server,
    all: Vec<GroupListener>,
}

impl Drop for Listeners<'_> {
    fn drop(&mut self) {
        *self.server.common().listeners() = std::mem::take(&mut self.all);
    }
}

/// The state on its way. Dropped before the new process serves, this one goes on where it stopped.
struct Handing {
    server: Rc<Server>,
    elsewhere: Rc<Elsewhere>,
}

impl Handing {
    /// From now on nothing is done here.
    fn give(&self, home: &Home) -> io::Result<()> {
        let bytes = home.state.borrow().hand_over(self.server.now()).map_err(io::Error::other)?;
        let channel = &self.elsewhere.channel;
        channel.send(message(&ToNew::Fronts(self.server.common().loops() as u16)));
        channel.send(state(&bytes));
        home.move_to(self.elsewhere.clone());
        Ok(())
    }
}

impl Drop for Handing {
    fn drop(&mut self) {
        if self.elsewhere.committed.get() {
            return;
        }
        let Some(home) = self.server.home() else { return };
        home.come_back();
        self.elsewhere.end();
        for (front, commands) in self.elsewhere.passed_on.take() {
            self.server.execute((front, commands));
        }
    }
}

/// Collects the listening sockets for the new process.
async fn collect_sockets(server: &Server) -> io::Result<Succession> {
    let mut succession = Succession::new()?;
    let all = std::mem::take(&mut *server.common().listeners());
    let listeners = Listeners { server, all };
    // Those of the configuration come first, in its order; then those that a service manager has passed beside.
    let mut configured = server.config().server.listen.iter();
    for listener in &listeners.all {
        let label = match configured.next() {
            Some(address) => address.to_string(),
            None => format!("{OF_MANAGER}{}", listener.addr()),
        };
        let sockets = listener.sockets().await?;
        succession.hand_over(label.as_bytes(), &sockets)?;
    }
    Ok(succession)
}

/// Starts the new process and hands everything over. When this returns, it serves.
///
/// Dropping the future gives it up, and so does an error: this process goes on then.
pub(in super::super) async fn replace(server: Rc<Server>, with: Successor) -> io::Result<Replaced> {
    let Some(home) = server.home() else { return Err(io::Error::other("the state is elsewhere")) };
    let mut program = Program::new(&with.program);
    program.args(&with.arguments);
    let succession = collect_sockets(&server).await?;
    let mut new = succession.spawn(program)?;
    let socket = new.channel().ok_or_else(|| io::Error::other("the channel is in use"))?;
    let (channel, mut incoming) = Channel::open(socket, Reader::default())?;
    let elsewhere = Rc::new(Elsewhere::new(channel));
    let handing = Handing { server: server.clone(), elsewhere: elsewhere.clone() };
    let (child, first) = until_ready(new, &mut incoming, || handing.give(home)).await?;
    // From this process it is believed.
    tell_manager(&[State::MainPid(child.id())]);
    if !home.has_moved() {
        return Err(io::Error::other("the new process serves without the state"));
    }
    elsewhere.committed.set(true);
    elsewhere.passed_on.take();
    server.common().replaced.store(true, Ordering::Relaxed);
    let listeners = std::mem::take(&mut *server.common().listeners());
    for listener in listeners {
        // The new process has the sockets; a loop with a full mailbox goes on accepting, and is a front like this one.
        let _ = listener.close_as(Closing::HandedOver);
    }
    Ok(Replaced { elsewhere, incoming, first })
}

/// Gives the new process what it asks for until it serves. Returns also what it has said since, if that has been read.
async fn until_ready(
    new: evenkeel::inherit::Successor,
    incoming: &mut Incoming,
    give: impl Fn() -> io::Result<()>,
) -> io::Result<(Child, Option<Frame<ToOld>>)> {
    let mut ready = pin!(new.ready(START));
    loop {
        let mut said = pin!(incoming.next::<ToOld>());
        let said = poll_fn(|cx| {
            if let Poll::Ready(ready) = ready.as_mut().poll(cx) {
                return Poll::Ready(ready.map(Err));
            }
            said.as_mut().poll(cx).map(|said| Ok(Ok(said)))
        });
        match said.await? {
            Err(child) => return Ok((child, None)),
            Ok(Ok(Some(Frame::Message(ToOld::Give)))) => give()?,
            // It serves and has said so, but by another socket, whose word may come later.
            Ok(Ok(first @ Some(_))) => return Ok((ready.await?, first)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
            // It has ended: how is to be heard from `ready`.
            Ok(Ok(None) | Err(_)) => {
                return Err(ready.await.err().map_or(io::ErrorKind::BrokenPipe.into(), Into::into));
            }
        }
    }
}

/// The new process serves, and this one is a front of it.
pub(in super::super) struct Replaced {
    elsewhere: Rc<Elsewhere>,
    incoming: Incoming,
    /// What was read already.
    first: Option<Frame<ToOld>>,
}

impl Replaced {
    pub(in super::super) fn elsewhere(&self) -> Rc<Elsewhere> {
        self.elsewhere.clone()
    }

    /// Does what the new process says until it says no more, which is when it ends.
    pub(in super::super) async fn serve(mut self, server: Rc<Server>) -> io::Result<()> {
        let result = loop {
            let said = match self.first.take() {
                None => self.incoming.next::<ToOld>().await,
                first => Ok(first),
            };
            match said {
                Ok(Some(Frame::Message(said))) => self.perform(&server, said),
                Ok(Some(Frame::State(_))) => break Err(io::Error::other("a state came back")),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.elsewhere.end();
        result
    }

    fn perform(&self, server: &Rc<Server>, said: ToOld) {
        match said {
            ToOld::Give => {}
            ToOld::Effects { front, batch } => {
                if let Some(home) = server.home() {
                    home.append(front, batch);
                    home.flush(server);
                }
            }
            ToOld::Answer { id, reply } => self.elsewhere.answered(id, reply),
            ToOld::Last => server.close_idle(),
        }
    }
}
