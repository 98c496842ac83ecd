//! Worlds: the runtime's own programs under seeded faults and virtual time.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "sim")]

/// Makes of each `fn name(&mut World, Backend)` one test for each driver, over so many seeds, of which each kind of fault named
/// must strike at least once.
macro_rules! on_every_driver {
    ($($name:ident($seeds:expr, $faults:expr);)*) => { $(
        mod $name {
            use evenkeel::Backend;

            fn check(backend: Backend) {
                let report = evenkeel::sim::Check::new().seeds($seeds).run(|world| super::$name(world, backend));
                let faults: &[evenkeel::sim::Fault] = $faults;
                // One world alone is a replay.
                for fault in faults.iter().filter(|_| report.worlds > 1) {
                    assert!(report.hits(*fault) > 0, "{fault} has never struck");
                }
            }

            #[test]
            fn sim() {
                check(Backend::Sim);
            }
            #[test]
            fn select() {
                check(Backend::Select);
            }
            #[test]
            fn poll() {
                check(Backend::Poll);
            }
            #[test]
            fn epoll_lt() {
                check(Backend::EpollLevel);
            }
            #[test]
            fn epoll() {
                check(Backend::Epoll);
            }
            #[test]
            fn io_uring() {
                check(Backend::IoUring);
            }
        }
    )* };
}

mod alone;
mod blocking;
mod broken;
mod comings;
mod handlers;
mod loops;
mod packets;
mod resets;
mod rings;
mod services;
mod slow;
mod streams;
mod timers;
