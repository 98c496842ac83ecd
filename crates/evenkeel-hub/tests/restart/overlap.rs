//! Signals and accidents while both processes have clients.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use super::site::Site;
use crate::support::{End, Http, Record, Ws, on_every_backend};

/// Only the first client is moved by itself.
const SLOWLY: &str = "drain_deadline_seconds = 3600\nloops = 2";

#[test]
fn one_replacement_at_a_time() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, SLOWLY);
        let (_first, mut a) = (site.ws(), site.ws());
        let old = site.replace();
        site.signal(old, Signal::USR2);
        site.logs(&["not replaced", "this process has been replaced"], 1);
        site.ask();
        site.logs(&["not replaced", "the process before this one still has connections"], 1);
        a.is_served();
        site.ws().is_served();
        site.signal(old, Signal::TERM);
        a.closes(4200);
        assert_eq!(site.ended(old), Some(0));
        site.logs(&["the process before is gone"], 1);
        site.replace_wholly();
    });
}

#[test]
fn i28_the_old_process_is_stopped_and_its_clients_are_moved_at_once() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, SLOWLY);
        let mut clients: Vec<Ws> = (0..20).map(|_| site.ws()).collect();
        let mut kept = site.http();
        assert_eq!(kept.get("/health").status, 200);
        let old = site.replace();
        site.signal(old, Signal::TERM);
        clients.iter_mut().for_each(|ws| ws.closes(4200));
        kept.ends();
        assert_eq!(site.ended(old), Some(0));
        site.canary().sings();
    });
}

#[test]
fn i28_the_new_process_is_stopped_and_all_clients_are_told() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, SLOWLY);
        let (_first, mut a, mut sse) = (site.ws(), site.ws(), site.sse(""));
        sse.is_caught_up();
        site.configure(&super::site::settings(backend, "drain_deadline_seconds = 2\nloops = 2", ""));
        let old = site.replace();
        let mut b = site.ws();
        site.signal(site.main, Signal::TERM);
        assert_eq!(site.told(), "STOPPING=1");
        a.closes(4200);
        assert_eq!(sse.next(), Record::End(End::Orderly));
        b.closes(4200);
        assert_eq!(site.ended(old), Some(0));
        assert_eq!(site.ended(site.main), Some(0));
    });
}

#[test]
fn i48_the_new_process_is_lost_and_the_old_ones_clients_are_told() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, SLOWLY);
        let (_first, mut a, mut kept) = (site.ws(), site.ws(), site.http());
        assert_eq!(kept.get("/health").status, 200);
        let old = site.replace();
        // One of whom the state that the old process had knows nothing.
        let mut newcomer = Ws::on(kept, "/app/key-a?protocol=7", "");
        newcomer.subscribe("c");
        site.signal(site.main, Signal::KILL);
        a.closes(4200);
        newcomer.closes(4200);
        assert_eq!(site.ended(old), Some(1));
        assert_eq!(site.ended(site.main), None);
        assert!(site.said("the new process is lost"));
    });
}

#[test]
fn i48_a_lonely_client_that_connects_at_any_moment_is_served_at_once() {
    // Nobody else comes whose connection would remind the kernel of one that waits.
    on_every_backend(|backend| {
        for (share, loops) in [("acceptor", 1), ("acceptor", 2), ("reuse-port", 2), ("shared", 2)] {
            let top = format!(
                "drain_deadline_seconds = 0\nloops = {loops}\nshare = '{share}'\n[limits]\naccept_rate = 0"
            );
            let mut site = Site::start(backend, &top);
            let (addr, over) = (site.addr, AtomicBool::new(false));
            std::thread::scope(|scope| {
                let client = scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        assert_eq!(Http::connect(addr).get("/health").status, 200);
                    }
                });
                // A failure must end the client, too, for which the scope waits.
                let replaced = catch_unwind(AssertUnwindSafe(|| (0..4).for_each(|_| site.replace_wholly())));
                over.store(true, Ordering::SeqCst);
                client.join().unwrap();
                replaced.unwrap_or_else(|failure| resume_unwind(failure));
            });
        }
    });
}
