//! Complete HTTP responses to requests that never reach the HTTP server.
//!
//! The front door answers some requests by itself, before or instead of a server that could: malformed ones, those of
//! the wrong origin, those over a limit. Such an answer is one small text that closes the connection.

use std::fmt::{Display, Write};

/// A response of plain text that ends the connection. `fields` are further header fields; their names and values come
/// from us and hold no line ends.
///
/// # Panics
///
/// When a field holds a line end.
///
/// ```
/// use evenkeel_hub::proto::reply::refusal;
///
/// let response = refusal(503, &[("Retry-After", "2")], &"draining");
/// assert!(response.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"));
/// assert!(response.ends_with(b"Retry-After: 2\r\nConnection: close\r\n\r\ndraining\n"));
/// ```
#[must_use]
pub fn refusal(status: u16, fields: &[(&str, &str)], message: &dyn Display) -> Vec<u8> {
    let body = format!("{message}\n");
    let mut response = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n",
        reason(status),
        body.len(),
    );
    for (name, value) in fields {
        assert!(!name.contains(['\r', '\n']) && !value.contains(['\r', '\n']), "line end in a header field");
        // Writing to a string cannot fail.
        let _ = write!(response, "{name}: {value}\r\n");
    }
    response.push_str("Connection: close\r\n\r\n");
    response.push_str(&body);
    response.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // The phrase may be empty, and no client reads it.
        _ => "",
    }
}
