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

    pub(super) fn flags(self) -> &'static str {
        match self {
            Sanitizer::Address => "-Zsanitizer=address",
            // The standard library is built without it, which the compiler would refuse to link.
            Sanitizer::Thread => "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
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
    pub(super) variables: &'static [(&'static str, &'static str)],
    /// It is a part of another row that fits into a few minutes, for every change.
    pub(super) bounded: bool,
}

const NONE: Run = Run {
    sanitizer: Sanitizer::Address,
    name: "",
    package: "evenkeel",
    targets: &[],
    tests: &[],
    variables: &[],
    bounded: false,
};

pub(super) const PLAN: [Run; 10] = [
    // Every test of the contract, on the interface that most use and on the one whose memory the kernel writes to.
    Run {
        name: "contract",
        targets: &["--test", "conformance"],
        tests: &["::epoll", "::io_uring", "--skip", "::epoll_lt"],
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
    Run { sanitizer: Sanitizer::Thread, name: "group", targets: &["--test", "group"], ..NONE },
    // Wakers and inboxes, pools of threads, connections that move.
    Run {
        sanitizer: Sanitizer::Thread,
        name: "units",
        targets: &["--lib"],
        tests: &["task::", "pool::", "remote::", "handover::", "group::", "fs::"],
        ..NONE
    },
    Run {
        sanitizer: Sanitizer::Thread,
        name: "conformance",
        targets: &["--test", "conformance"],
        tests: &["remote::", "offloading::", "moving::", "wakers::", "handover::", "files::", "signals::"],
        ..NONE
    },
    Run {
        sanitizer: Sanitizer::Thread,
        name: "hub",
        package: "evenkeel-hub",
        targets: &["--test", "server"],
        tests: &["loops::", "order::", "drain::"],
        variables: &[("EVENKEEL_TEST_LOOPS", "4")],
        ..NONE
    },
];
