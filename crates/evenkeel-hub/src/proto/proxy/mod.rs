//! The client's own address when a proxy stands in front of the hub.
//!
//! A proxy tells it either with a PROXY protocol header in front of the connection's first byte ([`header`]) or in a
//! header field of each request ([`client_address`]). Both are believed only from the proxies that the operator
//! lists ([`Cidr`]): whoever else could choose the address that limits count.

mod cidr;
mod forwarded;
pub mod header;
#[cfg(test)]
mod tests;

pub use cidr::{Cidr, CidrError};
pub use forwarded::{ForwardedBy, client_address};
