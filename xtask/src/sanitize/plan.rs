//! Which tests run under which sanitizer.

/// A sanitizer of the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sanitizer {
    /// Memory out of bounds, used after it was freed, or never freed.
    Address,
    /// Memory used by two threads with nothing between them.
    Thread,
}

impl Sanitizer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Sanitizer::Address => "address",
            Sanitizer::Thread => "thread",
        }
    }

    /// Flags of the compiler.
    pub(super) fn flags(self) -> &'static [&'static str] {
        match self {
            Sanitizer::Address => &["-Zsanitizer=address"],
            Sanitizer::Thread => &[
                "-Zsanitizer=thread",
                // The standard library is built without it, which the compiler would refuse to link.
                "-Cunsafe-allow-abi-mismatch=sanitizer",
                // What is generic or inlined there is to be compiled here, where it is instrumented.
                "-Zshare-generics=no",
                "-Copt-level=1",
            ],
        }
    }
}

/// One call of `cargo test`.
pub(super) struct Run {
    pub(super) sanitizer: Sanitizer,
    pub(super) name: &'static str,
    pub(super) package: &'static str,
    /// Arguments of cargo: which targets.
    pub(super) targets: &'static [&'static str],
    /// Arguments of the tests: which of them.
    pub(super) tests: &'static [&'static str],
    /// It is a part of another row that fits into a few minutes, for every change.
    pub(super) bounded: bool,
}

const NONE: Run = Run {
    sanitizer: Sanitizer::Address,
    name: "",
    package: "evenkeel",
    targets: &[],
    tests: &[],
    bounded: false,
};

pub(super) const PLAN: [Run; 7] = [
    // The tests of the contract, on the interface that most use and on the one whose memory the kernel writes to. The one
    // that is left out ends loops at every turn: on a busy machine that takes most of its watchdog's time, or all of it.
    Run {
        name: "contract",
        targets: &["--test", "conformance"],
        tests: &[
            "::epoll",
            "::io_uring",
            "--skip",
            "::epoll_lt",
            "--skip",
            "i16_a_loop_that_ends_at_any_turn",
            "--skip",
            "simulated::",
        ],
        bounded: true,
        ..NONE
    },
    Run { name: "units", targets: &["--lib"], ..NONE },
    Run { name: "conformance", targets: &["--test", "conformance"], ..NONE },
    Run { name: "group", targets: &["--test", "group"], ..NONE },
    Run { name: "compat", targets: &["--test", "compat", "--test", "inherit"], ..NONE },
    Run {
        name: "hub",
        package: "evenkeel-hub",
        targets: &["--lib", "--test", "server", "--test", "autobahn", "--test", "restart"],
        ..NONE
    },
    // Wakers, pools of threads, the ends of groups. Tests of whole loops are left out: they have threads with descriptor tables
    // of their own, in which the sanitizer cannot reach the program that finds the names of functions, and without names
    // nothing that is reported wrongly can be told from the rest.
    Run {
        sanitizer: Sanitizer::Thread,
        name: "units",
        targets: &["--lib"],
        tests: &["task::", "pool::", "group::", "fs::", "choice::", "dns::"],
        ..NONE
    },
];
