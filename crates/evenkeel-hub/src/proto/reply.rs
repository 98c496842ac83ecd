//! Complete HTTP responses to requests that never reach the HTTP server.

use std::fmt::{Display, Write};

/// A response of plain text that ends the connection. `fields` are whole lines, each with its line end.
pub(super) fn refusal(status: u16, fields: &str, message: &dyn Display) -> Vec<u8> {
    let mut body = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(body, "{message}");
    format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         {fields}Connection: close\r\n\r\n{body}",
        reason(status),
        body.len(),
    )
    .into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
