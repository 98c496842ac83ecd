//! The pages, embedded: plain files of the folder `assets`, served as they are.

use hyper::header::{CACHE_CONTROL, HeaderValue};

use super::http::{Reply, reply};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, content type, content. The pages have no inline script or style, so the policy needs no exception.
const FILES: &[(&str, &str, &[u8])] = &[
    ("/", HTML, include_bytes!("../../assets/console.html")),
    ("/console", HTML, include_bytes!("../../assets/console.html")),
    ("/chat", HTML, include_bytes!("../../assets/chat.html")),
    ("/assets/base.css", CSS, include_bytes!("../../assets/base.css")),
    ("/assets/console.css", CSS, include_bytes!("../../assets/console.css")),
    ("/assets/chat.css", CSS, include_bytes!("../../assets/chat.css")),
    ("/assets/console.js", JS, include_bytes!("../../assets/console.js")),
    ("/assets/chart.js", JS, include_bytes!("../../assets/chart.js")),
    ("/assets/publish.js", JS, include_bytes!("../../assets/publish.js")),
    ("/assets/request.js", JS, include_bytes!("../../assets/request.js")),
    ("/assets/stream.js", JS, include_bytes!("../../assets/stream.js")),
    ("/assets/tail.js", JS, include_bytes!("../../assets/tail.js")),
    ("/assets/chat.js", JS, include_bytes!("../../assets/chat.js")),
    ("/assets/client.js", JS, include_bytes!("../../assets/client.js")),
    ("/assets/icon.svg", SVG, include_bytes!("../../assets/icon.svg")),
];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The file at a path.
pub(super) fn file(path: &str) -> Option<Reply> {
    let (_, content_type, content) = FILES.iter().find(|(name, ..)| *name == path)?;
    let mut response = reply(200, content_type, *content);
    let headers = response.headers_mut();
    headers.insert("content-security-policy", HeaderValue::from_static(POLICY));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(response)
}
