//! Directions of imports that the crates' borders do not enforce.

use super::Fault;
use super::source::Source;

/// In a folder, paths that must not be used, and why.
struct Direction {
    folder: &'static str,
    forbidden: &'static [&'static str],
    why: &'static str,
}

const DIRECTIONS: [Direction; 2] = [
    Direction {
        folder: "crates/evenkeel-hub/src/proto/",
        forbidden: &[
            "evenkeel",
            "crate::server",
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "std::os::unix::net",
            "std::io::Read",
            "std::io::Write",
            "std::time::Instant",
            "std::time::SystemTime",
            "std::thread",
        ],
        why: "the protocols are bytes in, events out: without sockets, clocks and the runtime",
    },
    Direction {
        folder: "crates/evenkeel/src/backend/",
        forbidden: &["crate::net", "crate::task", "crate::fiber"],
        why: "a backend does not know who uses it",
    },
];

/// Uses of paths that point the wrong way. Tests may use what they like.
pub(super) fn directions(source: &Source<'_>) -> Vec<Fault> {
    let name = source.name();
    let test = source.is_test();
    let mut faults = Vec::new();
    for direction in DIRECTIONS.iter().filter(|direction| name.starts_with(direction.folder)) {
        for (line, path) in paths(source).into_iter().filter(|(line, _)| !test[*line]) {
            if let Some(forbidden) = direction.forbidden.iter().find(|forbidden| leads_into(&path, forbidden))
            {
                let message = format!("`{forbidden}` must not be used here: {}", direction.why);
                faults.push(Fault { path: source.path.to_path_buf(), line: line + 1, message });
            }
        }
    }
    faults
}

fn leads_into(path: &str, forbidden: &str) -> bool {
    path.strip_prefix(forbidden).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every path with `::` in the file, and every import, with the line it begins on. Groups in braces are spelled out.
fn paths(source: &Source<'_>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in source.code.iter().enumerate() {
        let trimmed = line.trim_start();
        let visible = trimmed.strip_prefix("pub").map_or(trimmed, |rest| match rest.strip_prefix('(') {
            Some(inside) => inside.split_once(')').map_or("", |(_, after)| after),
            None => rest,
        });
        if visible.trim_start().starts_with("use ") {
            let rest = source.code[number..].join(" ");
            let statement = rest.split(';').next().unwrap_or_default();
            let tree = statement.split_once("use ").map_or("", |(_, tree)| tree);
            let compact = tree.replace(" as ", "@").split_whitespace().collect::<String>();
            found.extend(spell_out("", &compact).into_iter().map(|path| (number, path)));
        } else {
            let part_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let words = line.split(|c| !part_of_path(c)).map(|word| word.trim_start_matches(':'));
            found.extend(words.filter(|word| word.contains("::")).map(|word| (number, word.to_owned())));
        }
    }
    found
}

/// `a::{b, c::{d, self}}` as `a::b`, `a::c::d`, `a::c`.
fn spell_out(prefix: &str, tree: &str) -> Vec<String> {
    let Some((head, group)) = tree.split_once('{') else {
        let name = tree.split('@').next().unwrap_or_default();
        let full = format!("{prefix}{name}");
        return vec![full.strip_suffix("::self").unwrap_or(&full).trim_start_matches("::").to_owned()];
    };
    let inside = group.strip_suffix('}').unwrap_or(group);
    let prefix = format!("{prefix}{head}");
    let mut depth = 0_usize;
    let parts = inside.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.is_empty()).flat_map(|part| spell_out(&prefix, part)).collect()
}

#[cfg(test)]
mod tests {
    use super::{directions, spell_out};
    use crate::tidy::source::Source;
    use std::path::Path;

    fn faults(path: &str, text: &str) -> usize {
        directions(&Source::new(Path::new(path), text)).len()
    }

    #[test]
    fn groups_are_spelled_out() {
        assert_eq!(spell_out("", "a::{b,c::{d,self},e@f}"), ["a::b", "a::c::d", "a::c", "a::e"]);
        assert_eq!(spell_out("", "::std::net"), ["std::net"]);
    }

    #[test]
    fn the_protocols_cannot_import_a_socket_or_the_runtime() {
        let proto = "crates/evenkeel-hub/src/proto/ws.rs";
        assert_eq!(faults(proto, "use evenkeel::Loop;"), 1);
        assert_eq!(faults(proto, "use evenkeel as runtime;"), 1);
        assert_eq!(faults(proto, "pub(crate) use std::{fmt, net::{IpAddr,\n TcpStream}};"), 1);
        assert_eq!(faults(proto, "fn f() { crate::server::go(); }"), 1);
        assert_eq!(faults(proto, "use std::time::{Duration, Instant};"), 1);
        assert_eq!(
            faults(proto, "use std::net::IpAddr;\nuse evenkeel_hub::x;\nuse crate::text;\n// evenkeel::x"),
            0
        );
        assert_eq!(faults("crates/evenkeel-hub/src/server/mod.rs", "use evenkeel::Loop;"), 0);
    }

    #[test]
    fn a_backend_cannot_import_what_stands_on_it() {
        let backend = "crates/evenkeel/src/backend/epoll.rs";
        assert_eq!(faults(backend, "use crate::net::Stream;"), 1);
        assert_eq!(faults(backend, "use crate::{sys, task};"), 1);
        assert_eq!(faults(backend, "use crate::{sys, network};"), 0);
        assert_eq!(faults(backend, "#[cfg(test)]\nmod tests {\n use crate::net::Stream;\n}"), 0);
    }
}
