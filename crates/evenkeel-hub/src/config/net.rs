//! Address blocks, and what a browser's origin looks like.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A block of addresses: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether `address` is in the block. An IPv4 address that came in IPv6 form (`::ffff:10.0.0.1`) counts as IPv4, since
    /// that is how a dual-stack listener reports it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(block), IpAddr::V4(address)) => {
                same_prefix(u128::from(block.to_bits()) << 96, u128::from(address.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(block), IpAddr::V6(address)) => {
                same_prefix(block.to_bits(), address.to_bits(), self.bits)
            }
            _ => false,
        }
    }
}

fn same_prefix(a: u128, b: u128, bits: u8) -> bool {
    // A shift by all 128 bits has no value; it means that nothing needs to be the same.
    (a ^ b).checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let wrong = || format!("\"{text}\" is not an address or a block like 10.0.0.0/8");
        let address = address.parse::<IpAddr>().map_err(|_| wrong())?.to_canonical();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => longest,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= longest).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Which origins a browser's page may have: `*`, `https://example.com`, `https://*.example.com`, either of these with a
/// port, or `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern(String);

impl OriginPattern {
    /// Whether the value of an `Origin` header fits. `null`, which sandboxed pages send and anyone
    /// can take on, fits only `null` and `*`.
    pub fn matches(&self, origin: &str) -> bool {
        if self.0 == "*" {
            return true;
        }
        let origin = origin.to_ascii_lowercase();
        match self.0.split_once("://*.") {
            None => origin == self.0,
            Some((scheme, domain)) => origin
                .strip_prefix(scheme)
                .and_then(|rest| rest.strip_prefix("://"))
                .and_then(|host| host.strip_suffix(domain))
                .and_then(|labels| labels.strip_suffix('.'))
                .is_some_and(|labels| {
                    !labels.is_empty()
                        && labels.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
                }),
        }
    }
}

impl FromStr for OriginPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let host = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
        let host = host.map(|host| host.strip_prefix("*.").unwrap_or(host));
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
        if lower == "*"
            || lower == "null"
            || host.is_some_and(|host| !host.is_empty() && host.bytes().all(allowed))
        {
            Ok(Self(lower))
        } else {
            Err(format!(
                "\"{text}\" is not an origin: https://HOST, https://*.DOMAIN, with a port if any, null or *"
            ))
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn contains(block: &str, address: &str) -> bool {
        block.parse::<Cidr>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn blocks_contain_what_they_should() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("192.168.1.7", "192.168.1.7") && !contains("192.168.1.7", "192.168.1.6"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "2001:db8::1") && !contains("::/0", "8.8.8.8"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"), "a dual-stack listener's form");
        assert!(contains("10.0.0.128/25", "10.0.0.200") && !contains("10.0.0.128/25", "10.0.0.127"));
    }

    #[test]
    fn i50_wrong_blocks_are_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0/8",
            "host",
            "10.0.0.0/8/8",
            "::1/256",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn origins_match_whole_hosts_only() {
        let fits = |pattern: &str, origin: &str| pattern.parse::<OriginPattern>().unwrap().matches(origin);
        assert!(fits("null", "null") && !fits("null", "https://null"));
        assert!(fits("*", "null") && fits("*", "https://evil"));
        assert!(fits("https://Example.com", "https://example.COM"));
        assert!(fits("http://localhost:8080", "http://localhost:8080"));
        assert!(fits("https://*.example.com", "https://a.b.example.com"));
        for origin in [
            "https://example.com",
            "https://.example.com",
            "http://a.example.com",
            "https://aexample.com",
            "https://a.example.com.evil.org",
            "https://evil.org/.example.com",
            "https://evil.org#.example.com",
            "https://a.example.com:8443",
            "null",
            "",
        ] {
            assert!(!fits("https://*.example.com", origin), "{origin}");
        }
        for pattern in
            ["", "example.com", "https://", "https://*.", "ftp://a", "https://a/b", "https://a,b", "nul"]
        {
            assert!(pattern.parse::<OriginPattern>().is_err(), "{pattern}");
        }
    }
}
