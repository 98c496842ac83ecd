//! Pools: listening and connecting with callbacks.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use super::{Addr, ConnectOptions, IntoAddr, Limits, ListenOptions, SocketOption, Stream};
use crate::core::pool::{AnyPool, Made, TypedPool};
use crate::core::shared::{Listener, Timer};
use crate::core::{Core, Kind, Shared, Token, caught, flag};
use crate::handler::{ConnId, Handler};
use crate::sys::{Fd, SocketFile};

/// Connections whose handlers are of one type and that share [`Limits`].
///
/// Handlers live side by side in the pool's memory: a warm pool allocates nothing for a connection.
///
/// ```no_run
/// use evenkeel::net::{Limits, ListenOptions};
/// use evenkeel::{Conn, EventLoop, Handler};
/// use std::time::Duration;
///
/// struct Greeter;
/// impl Handler for Greeter {
///     fn on_open(&mut self, conn: &mut Conn<'_>) {
///         conn.write(b"hello\n");
///         conn.close();
///     }
///     fn on_data(&mut self, _: &mut Conn<'_>, _: &[u8]) {}
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let mut events = EventLoop::new()?;
/// let mut limits = Limits::default();
/// limits.idle_timeout = Some(Duration::from_secs(10));
/// let pool = events.handle().pool(limits);
/// pool.listen("127.0.0.1:7000", &ListenOptions::default(), |_| Greeter)?;
/// events.run()
/// # }
/// ```
pub struct Pool<H> {
    pub(crate) shared: Rc<Shared>,
    pub(crate) typed: Rc<TypedPool<H>>,
}

/// Names a listener that feeds a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId {
    pub(crate) token: Token,
    pub(crate) owner: u32,
}

impl<H: Handler> Pool<H> {
    pub(crate) fn new(shared: &Rc<Shared>, limits: Limits) -> Self {
        let typed = Rc::new(TypedPool::new(limits));
        let place = shared.add_pool(typed.clone());
        typed.place.set(place);
        Pool { shared: shared.clone(), typed }
    }

    /// Accepts connections at `at`, each with a handler that `make` makes from its peer's address.
    ///
    /// When descriptors run out, newcomers are reset instead of being kept waiting, and accepting goes on within
    /// 100 ms of descriptors being free again. A panic in `make` closes that connection and is counted.
    ///
    /// # Errors
    /// The kernel's, such as an address in use; `Unsupported` where the backend cannot watch so high a descriptor.
    pub fn listen(
        &self,
        at: impl IntoAddr,
        options: &ListenOptions,
        make: impl Fn(&Addr) -> H + 'static,
    ) -> io::Result<ListenerId> {
        let at = at.into_addr()?;
        let token = listen(&self.shared, &at, options, Some(self.accepting(options, make)))?;
        Ok(ListenerId { token, owner: self.shared.id })
    }

    /// As [`listen`](Self::listen), at a socket that listens already, such as one that this process has
    /// [inherited](crate::inherit). Of `options`, those count that are about accepted connections, and
    /// [`unlink`](ListenOptions::unlink) for when the listener closes.
    ///
    /// # Errors
    /// `InvalidInput` when it is no listening stream socket; otherwise as for [`listen`](Self::listen). The socket is closed
    /// then.
    pub fn listen_on(
        &self,
        socket: impl Into<OwnedFd>,
        options: &ListenOptions,
        make: impl Fn(&Addr) -> H + 'static,
    ) -> io::Result<ListenerId> {
        let listener = Some(self.accepting(options, make));
        let token = listen_on(&self.shared, socket.into(), options.unlink, 0, listener)?;
        Ok(ListenerId { token, owner: self.shared.id })
    }

    fn accepting(&self, options: &ListenOptions, make: impl Fn(&Addr) -> H + 'static) -> Listener {
        let typed = Rc::downgrade(&self.typed);
        let setup = AcceptedSetup::new(options);
        let make = move |shared: &Rc<Shared>, fd: Fd, peer: &Addr| {
            setup.apply(shared, fd, peer);
            let made = caught(|| make(peer)).zip(typed.upgrade());
            made.map_or(Made::Failed, |(handler, typed)| Made::Here(typed.insert(handler)))
        };
        Listener { make: Rc::new(make), pool: self.typed.place.get(), token: None }
    }

    /// Connects to `to`. The handler hears `on_open` when the connection is established, or `on_close` with
    /// [`ConnectFailed`](crate::CloseReason::ConnectFailed). What is written before is sent then.
    ///
    /// # Errors
    /// The kernel's, when it cannot even begin; the handler is dropped then.
    pub fn connect(&self, to: impl IntoAddr, options: &ConnectOptions, handler: H) -> io::Result<ConnId> {
        let (fd, flags) = connect(&self.shared, &to.into_addr()?, options)?;
        let token = self.shared.adopt_callback(&self.typed, fd, flags, handler)?;
        if flags & flag::CONNECTING == 0 {
            self.shared.core.borrow_mut().pending.push(token);
        } else if let Some(deadline) = options.deadline {
            self.shared.arm_deadline(token, deadline, Timer::Connect(token));
        }
        Ok(ConnId { token, owner: self.shared.id })
    }

    /// Takes over a stream: its handler hears `on_open` in the next turn, then `unread` followed by whatever else
    /// the stream had not read. What the stream had queued is sent first.
    ///
    /// # Errors
    /// Gives the handler back when the stream is over.
    ///
    /// # Panics
    /// For a stream of another loop.
    pub fn adopt(&self, stream: Stream, handler: H, unread: &[u8]) -> Result<ConnId, H> {
        assert!(Rc::ptr_eq(&self.shared, &stream.shared), "the stream is of another loop");
        let token = self.shared.attach(stream.into_token(), &self.typed, handler, unread)?;
        Ok(ConnId { token, owner: self.shared.id })
    }

    /// Closes every connection of the pool, each as by [`Conn::close`](crate::Conn::close): for a server that stops,
    /// after its listeners are closed. [`is_empty`](Self::is_empty) tells when all are over.
    pub fn close_all(&self) {
        let place = self.typed.place.get();
        let capacity = self.shared.core.borrow().sources.capacity();
        for at in 0..capacity {
            let mut core = self.shared.core.borrow_mut();
            let found = core.sources.at(at).filter(|(_, s)| s.kind() == Kind::Callback && s.pool == place);
            let token = found.map(|(token, _)| token);
            drop(core);
            if let Some(token) = token {
                self.shared.close(token);
            }
        }
    }

    /// The number of connections in the pool.
    pub fn len(&self) -> usize {
        self.typed.len()
    }

    /// Whether the pool has no connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<H> Clone for Pool<H> {
    fn clone(&self) -> Self {
        Pool { shared: self.shared.clone(), typed: self.typed.clone() }
    }
}

impl<H> fmt::Debug for Pool<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// What is set on each accepted socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcceptedSetup {
    nodelay: bool,
    keepalive: Option<super::KeepAlive>,
}

impl AcceptedSetup {
    pub(crate) fn new(options: &ListenOptions) -> Self {
        AcceptedSetup { nodelay: options.nodelay, keepalive: options.keepalive }
    }

    /// A peer that is gone already makes these fail; reading will tell.
    pub(crate) fn apply(self, shared: &Shared, fd: Fd, peer: &Addr) {
        if peer.socket_addr().is_none() {
            return;
        }
        let sys = shared.driver.sys();
        if self.nodelay {
            let _ = sys.set_option(fd, SocketOption::NoDelay(true));
        }
        if self.keepalive.is_some() {
            let _ = sys.set_option(fd, SocketOption::KeepAlive(self.keepalive));
        }
    }
}

/// Opens a listening socket: for a pool, or for a task if there is no `listener`.
pub(crate) fn listen(
    shared: &Shared,
    at: &Addr,
    options: &ListenOptions,
    listener: Option<Listener>,
) -> io::Result<Token> {
    check_running(shared)?;
    let sys = shared.driver.sys();
    if let (true, Some(path)) = (options.unlink, at.unix_path()) {
        sys.remove_socket_file(path, None);
    }
    let fd = sys.listen(at, options)?;
    serve(shared, fd, at, options.unlink, 0, listener)
}

/// Accepts from a socket that listens already, which is closed if that cannot be. `flags` is those of the new source.
pub(crate) fn listen_on(
    shared: &Shared,
    socket: OwnedFd,
    unlink: bool,
    flags: u32,
    listener: Option<Listener>,
) -> io::Result<Token> {
    check_running(shared)?;
    let sys = shared.driver.sys();
    let addr = sys.listening(socket.as_fd())?.addr;
    serve(shared, sys.import(socket)?, &addr, unlink, flags, listener)
}

fn serve(
    shared: &Shared,
    fd: Fd,
    at: &Addr,
    unlink: bool,
    flags: u32,
    listener: Option<Listener>,
) -> io::Result<Token> {
    let path = at.unix_path();
    // Looked at as soon as may be: what has the path now is taken for the socket's own file.
    let file = path.filter(|_| unlink).and_then(|path| shared.driver.sys().socket_file(path));
    let unix = if at.socket_addr().is_none() { flag::UNIX } else { 0 };
    let flags = flags | unix | if file.is_some() { flag::UNLINK } else { 0 };
    let token = match listener {
        Some(listener) => add_listener(shared, fd, flags, listener)?,
        None => shared.adopt_async(fd, Kind::TaskListener, flag::READABLE | flags)?,
    };
    if let (Some(path), Some(file)) = (path, file) {
        shared.core.borrow_mut().socket_files.push((token, path.to_owned(), file));
    }
    Ok(token)
}

/// Accepts for a pool from a listening socket, which is closed if that cannot be.
pub(crate) fn add_listener(shared: &Shared, fd: Fd, flags: u32, listener: Listener) -> io::Result<Token> {
    let mut core = shared.core.borrow_mut();
    let pool = listener.pool;
    let slot = core.add_listener(listener);
    let token = core.sources.insert(fd, Kind::Listener, flags, pool, slot, 0);
    if let Some(listener) = &mut core.listeners[slot as usize] {
        listener.token = Some(token);
    }
    drop(core);
    if let Err(e) = shared.driver.register(shared, token) {
        let mut core = shared.core.borrow_mut();
        core.sources.remove(token);
        let listener = core.listeners[slot as usize].take();
        drop(core);
        drop(listener);
        shared.driver.sys().close(fd);
        return Err(e);
    }
    Ok(token)
}

pub(crate) fn check_running(shared: &Shared) -> io::Result<()> {
    if shared.ended.get() {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "the loop has ended"));
    }
    Ok(())
}

impl Core {
    /// The file that was to go with a listener. From here on it stays.
    pub(crate) fn forget_socket_file(&mut self, token: Token) -> Option<(PathBuf, SocketFile)> {
        let at = self.socket_files.iter().position(|(of, ..)| *of == token)?;
        let (_, path, file) = self.socket_files.swap_remove(at);
        Some((path, file))
    }

    pub(crate) fn add_listener(&mut self, listener: Listener) -> u32 {
        if let Some(at) = self.listeners.iter().position(Option::is_none) {
            self.listeners[at] = Some(listener);
            return at as u32;
        }
        self.listeners.push(Some(listener));
        (self.listeners.len() - 1) as u32
    }
}

/// Begins to connect. The flags are those of the new source.
pub(crate) fn connect(shared: &Shared, to: &Addr, options: &ConnectOptions) -> io::Result<(Fd, u32)> {
    check_running(shared)?;
    let (fd, connected) = shared.driver.sys().connect(to, options)?;
    let unix = if to.unix_path().is_some() { flag::UNIX } else { 0 };
    let state = if connected { flag::READABLE | flag::WRITABLE } else { flag::CONNECTING };
    Ok((fd, unix | state))
}
