//! Ranges of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses such as `10.0.0.0/8` or `2001:db8::/32`. An address alone is a range of one.
///
/// IPv4 addresses written as IPv6 (`::ffff:10.0.0.1`) are IPv4 addresses here, in ranges and in what is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// A range that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CidrError {
    /// The part in front of the slash is not an address.
    Address,
    /// The part behind the slash is not a number of bits that the address has.
    Prefix,
    /// The address has bits outside of its prefix; the range meant is probably this one.
    HostBits(Cidr),
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CidrError::Address => f.write_str("not an address range: write 10.0.0.0/8 or 2001:db8::/32"),
            CidrError::Prefix => {
                f.write_str("prefix length is not a number from 0 to 32, or to 128 for IPv6")
            }
            CidrError::HostBits(meant) => write!(f, "address has bits outside of its prefix: write {meant}"),
        }
    }
}

impl std::error::Error for CidrError {}

impl Cidr {
    /// Whether `address` lies in this range. A range of IPv6 holds no IPv4 address, and the other way round.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == Some(self.network)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        let bits = if written.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse::<u8>().ok().filter(|prefix| *prefix <= bits).ok_or(CidrError::Prefix)?
            }
            Some(_) => return Err(CidrError::Prefix),
        };
        let address = written.to_canonical();
        // A mapped address has 96 bits in front of those of its IPv4 address.
        let skipped = if written.is_ipv6() && address.is_ipv4() { 96 } else { 0 };
        let prefix = prefix.checked_sub(skipped).ok_or(CidrError::Prefix)?;
        let network = masked(address, prefix).ok_or(CidrError::Prefix)?;
        let cidr = Cidr { network, prefix };
        if network == address { Ok(cidr) } else { Err(CidrError::HostBits(cidr)) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// The address with all bits behind the prefix cleared. None when the address has fewer bits.
fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let kept = u32::MAX.checked_shl(32_u32.checked_sub(prefix.into())?).unwrap_or(0);
            Some(IpAddr::V4((address.to_bits() & kept).into()))
        }
        IpAddr::V6(address) => {
            let kept = u128::MAX.checked_shl(128_u32.checked_sub(prefix.into())?).unwrap_or(0);
            Some(IpAddr::V6((address.to_bits() & kept).into()))
        }
    }
}
