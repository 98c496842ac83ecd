//! The address of either end of a connection.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// An address of a stream socket: internet or Unix.
///
/// Text converts by the rules `unix:PATH` for a Unix socket and `IP:PORT` for the rest:
///
/// ```
/// use evenkeel::net::Addr;
/// let tcp: Addr = "127.0.0.1:7000".parse()?;
/// let unix: Addr = "unix:/run/app.sock".parse()?;
/// assert!(tcp.ip().is_some() && unix.ip().is_none());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Addr {
    /// An internet address and port.
    Ip(SocketAddr),
    /// A Unix socket's path; none for an unnamed socket, as a client's end usually is.
    Unix(Option<PathBuf>),
}

impl Addr {
    /// The internet address and port, if it is one.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Addr::Ip(ip) => Some(*ip),
            Addr::Unix(_) => None,
        }
    }

    /// The internet address, if it is one. IPv4 addresses that reached a dual-stack socket are IPv4 here.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|a| a.ip().to_canonical())
    }

    pub(crate) fn unix_path(&self) -> Option<&Path> {
        match self {
            Addr::Unix(path) => path.as_deref(),
            Addr::Ip(_) => None,
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Ip(ip) => ip.fmt(f),
            Addr::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Addr::Unix(None) => f.write_str("unix:(unnamed)"),
        }
    }
}

impl std::str::FromStr for Addr {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Addr::Unix(Some(path.into())));
        }
        text.parse().map(Addr::Ip).map_err(|_| {
            let what = format!("`{text}` is neither IP:PORT (as in 127.0.0.1:80 or [::1]:80) nor unix:PATH");
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })
    }
}

impl From<SocketAddr> for Addr {
    fn from(ip: SocketAddr) -> Self {
        Addr::Ip(ip)
    }
}

impl From<PathBuf> for Addr {
    fn from(path: PathBuf) -> Self {
        Addr::Unix(Some(path))
    }
}

impl From<&Path> for Addr {
    fn from(path: &Path) -> Self {
        Addr::Unix(Some(path.into()))
    }
}

/// What can name an address: an [`Addr`], a `SocketAddr`, a path, or text as [`Addr`] parses it. No name is
/// looked up.
pub trait IntoAddr {
    /// The address.
    ///
    /// # Errors
    /// `InvalidInput` for text that names none.
    fn into_addr(self) -> io::Result<Addr>;
}

impl IntoAddr for &str {
    fn into_addr(self) -> io::Result<Addr> {
        self.parse()
    }
}

/// An internet address as text, and a port.
impl IntoAddr for (&str, u16) {
    fn into_addr(self) -> io::Result<Addr> {
        let ip: IpAddr = self.0.parse().map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` is not an internet address", self.0))
        })?;
        Ok(Addr::Ip(SocketAddr::new(ip, self.1)))
    }
}

impl<A: Into<Addr>> IntoAddr for A {
    fn into_addr(self) -> io::Result<Addr> {
        Ok(self.into())
    }
}
