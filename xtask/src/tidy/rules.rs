//! The rules that look at one file at a time.

use std::path::Path;

use super::Fault;
use super::permissions::{Permissions, allows};
use super::source::{Source, words};

/// The longest function, from its `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;

fn fault(path: &Path, index: usize, message: impl Into<String>) -> Fault {
    Fault { path: path.to_path_buf(), line: index + 1, message: message.into() }
}

/// Functions longer than [`FUNCTION_LINES`]. The limit is a ratchet, not a goal: it is never raised, and nothing is split
/// only to please it.
pub(super) fn short_functions(source: &Source<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (start, line) in source.code.iter().enumerate() {
        let Some(name) = words(line, "fn").find_map(|at| function_name(&line[at + 2..])) else { continue };
        let Some(end) = source.item_end(start) else { continue };
        let length = end - start + 1;
        if length > FUNCTION_LINES {
            let message = format!("`{name}` has {length} lines, more than {FUNCTION_LINES}");
            faults.push(fault(source.path, start, message));
        }
    }
    faults
}

/// The name after `fn`, which a function pointer's type does not have.
fn function_name(rest: &str) -> Option<&str> {
    let name = rest.strip_prefix(' ')?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (end > 0).then(|| &name[..end])
}

/// Each `unsafe` block and `unsafe impl` has a comment that says which fact it relies on.
pub(super) fn safety_comments(source: &Source<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, line) in source.code.iter().enumerate() {
        let claims = words(line, "unsafe").any(|at| {
            let next = line[at + "unsafe".len()..].trim_start();
            next.is_empty() || next.starts_with('{') || next.starts_with("impl")
        });
        if claims && !has_safety_comment(source, index) {
            faults.push(fault(source.path, index, "`unsafe` without a comment `// SAFETY: ...` before it"));
        }
    }
    faults
}

/// Looks at the line itself, then upwards through the statement's own lines, attributes and comments.
fn has_safety_comment(source: &Source<'_>, index: usize) -> bool {
    for at in (0..=index).rev() {
        if source.lines[at].contains("SAFETY:") {
            return true;
        }
        if at == index {
            continue;
        }
        let code = source.code[at].trim();
        let comment = code.is_empty() && !source.lines[at].trim().is_empty();
        let attribute = code.starts_with("#[");
        let unfinished = !code.is_empty() && !code.ends_with([';', '{', '}', ',']);
        if !comment && !attribute && !unfinished {
            return false;
        }
    }
    false
}

/// What is allowed in some places only: `unsafe`, naming an operating system, clocks and threads.
pub(super) fn places(source: &Source<'_>, permissions: &Permissions) -> Vec<Fault> {
    const CLOCKS: [&str; 3] = ["Instant::now", "SystemTime::now", "thread::spawn"];
    let name = source.name();
    let test = source.is_test();
    let mut faults = Vec::new();
    for (index, line) in source.code.iter().enumerate() {
        if words(line, "unsafe").next().is_some() && !allows(&permissions.unsafe_code, &name) {
            faults.push(fault(source.path, index, "`unsafe` is not allowed here (see ARCHITECTURE.md)"));
        }
        if words(line, "target_os").next().is_some() && !allows(&permissions.systems, &name) {
            faults.push(fault(source.path, index, "`target_os` is not allowed here (see ARCHITECTURE.md)"));
        }
        let clock = CLOCKS.iter().find(|clock| words(line, clock).next().is_some());
        if let Some(clock) = clock.filter(|_| !test[index] && !allows(&permissions.clocks, &name)) {
            let message =
                format!("`{clock}` is not allowed here: simulation replaces it (see ARCHITECTURE.md)");
            faults.push(fault(source.path, index, message));
        }
    }
    faults
}

/// Notes that something is unfinished. What is missing belongs into an issue or is done.
pub(super) fn no_leftovers(path: &Path, text: &str) -> Vec<Fault> {
    // Put together so that this file does not find itself.
    const MARKS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for mark in MARKS.into_iter().filter(|mark| words(line, mark).next().is_some()) {
            faults.push(fault(path, index, format!("{mark} is left over")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::{no_leftovers, places, safety_comments, short_functions};
    use crate::tidy::permissions::Permissions;
    use crate::tidy::source::Source;
    use std::path::Path;

    const HERE: &str = "crates/a/src/b.rs";

    fn source(text: &str) -> Source<'_> {
        Source::new(Path::new(HERE), text)
    }

    #[test]
    fn long_functions_are_found() {
        let body = "    work();\n".repeat(68);
        assert!(short_functions(&source(&format!("fn fits() {{\n{body}}}\n"))).is_empty());
        let long = format!("impl X {{\npub(crate) const fn long(\n x: [u8; 2]\n) {{\n{body}}}\n}}\n");
        let faults = short_functions(&source(&long));
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].line, faults[0].message.contains("`long` has 72 lines")), (2, true));
        let not_a_function =
            format!("struct S {{\n f: fn(u8),\n}}\nconst X: [u8; 1] = [\n{}];\n", "0,\n".repeat(99));
        assert!(short_functions(&source(&not_a_function)).is_empty());
    }

    #[test]
    fn unsafe_needs_a_safety_comment() {
        let good = [
            "// SAFETY: open.\nlet x = unsafe { f() };",
            "let x = unsafe { f() }; // SAFETY: open.",
            "// SAFETY: open,\n// and stays so.\n#[allow(x)]\nlet x =\n    unsafe { f() };",
            "// SAFETY: no data.\nunsafe impl Send for X {}",
            "unsafe fn f() {}\nunsafe extern \"C\" fn g() {}\n#[unsafe(no_mangle)]\nfn h() {}",
            "// unsafe { }\nlet x = \"unsafe { }\";",
        ];
        for text in good {
            assert!(safety_comments(&source(text)).is_empty(), "{text}");
        }
        let bad = [
            "let x = unsafe { f() };",
            "// SAFETY: open.\nf();\nlet x = unsafe { f() };",
            "// SAFETY: open.\n\nlet x = unsafe { f() };",
            "unsafe impl Send for X {}",
        ];
        for text in bad {
            assert_eq!(safety_comments(&source(text)).len(), 1, "{text}");
        }
    }

    #[test]
    fn what_is_bound_to_a_place_is_found_elsewhere() {
        let text = "unsafe fn f() {}\n#[cfg(target_os = \"linux\")]\nfn g() { Instant::now(); std::thread::spawn(h); }\n\
                    #[cfg(test)]\nmod tests { fn t() { SystemTime::now(); } }\n// unsafe, Instant::now\n";
        assert_eq!(places(&source(text), &Permissions::default()).len(), 3);
        let here = || vec!["crates/a/src".to_owned()];
        let allowed = Permissions { unsafe_code: here(), systems: here(), clocks: here() };
        assert!(places(&source(text), &allowed).is_empty());
        let others = Permissions { clocks: vec!["crates/c".to_owned()], ..allowed };
        assert_eq!(places(&source(text), &others).len(), 1);
    }

    #[test]
    fn leftovers_are_found() {
        let text = format!(
            "a {}: b\nfn {}s() {{}}\n/* {} */",
            concat!("TO", "DO"),
            concat!("TO", "DO"),
            concat!("FIX", "ME")
        );
        let lines: Vec<usize> =
            no_leftovers(Path::new("x.js"), &text).iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [1, 3]);
    }
}
