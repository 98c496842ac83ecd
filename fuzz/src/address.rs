//! Addresses as text.

use std::net::SocketAddr;

use evenkeel::Backend;
use evenkeel::net::{Addr, IntoAddr};

/// An address, or an address and a port; the name of a backend.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let expected = match text.strip_prefix("unix:") {
        Some(path) => Some(Addr::Unix(Some(path.into()))),
        None => text.parse::<SocketAddr>().ok().map(Addr::Ip),
    };
    match text.parse::<Addr>() {
        Ok(addr) => {
            assert_eq!(Some(&addr), expected.as_ref());
            assert_eq!(
                addr.to_string().parse::<Addr>().ok().as_ref(),
                Some(&addr),
                "shown it is another one"
            );
            assert_eq!(addr.ip().is_some(), addr.socket_addr().is_some());
        }
        Err(error) => assert!(expected.is_none() && error.to_string().contains(text)),
    }
    let port = bytes.len() as u16;
    match (text, port).into_addr() {
        Ok(addr) => assert_eq!(addr.socket_addr().map(|addr| addr.port()), Some(port)),
        Err(_) => assert!(text.parse::<std::net::IpAddr>().is_err()),
    }
    if let Ok(backend) = text.parse::<Backend>() {
        assert_eq!(backend.name(), text);
    }
}
