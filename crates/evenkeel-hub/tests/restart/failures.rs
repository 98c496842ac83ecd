//! A new process that does not come to serve: the old one goes on, and nobody notices.

use std::net::TcpListener;

use evenkeel::Backend;
use rustix::process::Signal;

use super::site::{Site, settings};
use crate::support::on_every_backend;

const TOP: &str = "drain_deadline_seconds = 1\nloops = 2";

/// A replacement fails, as the log says, while clients are served; and the next succeeds.
fn fails(backend: Backend, spoil: impl Fn(&Site), why: &[&str], mend: impl Fn(&Site)) {
    let mut site = Site::start(backend, TOP);
    let (mut before, mut member) = (site.canary(), site.joins("a").0);
    for times in 1..=2 {
        spoil(&site);
        site.ask();
        // Whatever is asked while it starts is done, by one process or the other.
        (0..20).for_each(|_| before.sings());
        site.logs(&[&["ERROR not replaced"], why].concat(), times);
        before.sings();
        member.is_served();
        site.canary().sings();
        mend(&site);
    }
    site.replace_wholly();
    member.closes(4200);
    assert!(site.joins("b").1.contains(r#""count":2"#), "who is moved keeps the seat for a while");
    site.canary().sings();
}

#[test]
fn i48_a_program_that_ends_at_once() {
    on_every_backend(|backend| {
        fails(
            backend,
            |site| site.put_program(Some("/bin/false")),
            &["exit status: 1"],
            |site| {
                site.put_program(None);
            },
        );
    });
}

#[test]
fn i48_no_program() {
    on_every_backend(|backend| {
        fails(backend, Site::remove_program, &["os error 2"], |site| site.put_program(None));
    });
}

#[test]
fn i48_a_broken_configuration() {
    on_every_backend(|backend| {
        let broken = |site: &Site| site.configure("listen = 5\nno_such_option = true\n");
        fails(backend, broken, &["exit status: 1"], |site| site.configure(&settings(backend, TOP, "")));
    });
}

#[test]
fn i48_an_address_that_is_taken_once_the_state_has_been_given() {
    on_every_backend(|backend| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let both = format!("listen = ['127.0.0.1:0', '{}']", taken.local_addr().unwrap());
        let spoilt = settings(backend, TOP, "").replace("listen = ['127.0.0.1:0']", &both);
        let mended = settings(backend, TOP, "");
        fails(backend, |site| site.configure(&spoilt), &["exit status: 1"], |site| site.configure(&mended));
    });
}

#[test]
fn i48_a_new_process_that_is_killed_before_it_serves() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, TOP);
        let mut canary = site.canary();
        for times in 1..=2 {
            site.hold_the_configuration();
            site.ask();
            let new = site.starting();
            site.ask();
            site.logs(&["not replaced", "a new process is starting already"], times);
            canary.sings();
            site.signal(new, Signal::KILL);
            site.logs(&["ERROR not replaced", "signal: 9"], times);
            site.is_gone(new);
            canary.sings();
            site.canary().sings();
        }
        // One that takes its time.
        let pipe = site.hold_the_configuration();
        site.ask();
        canary.sings();
        std::fs::write(&pipe, settings(backend, TOP, "")).unwrap();
        let old = site.is_replaced();
        assert_eq!(site.ended(old), Some(0));
        site.canary().sings();
    });
}

#[test]
fn i28_stopped_while_a_new_process_starts() {
    on_every_backend(|backend| {
        let mut site = Site::start(backend, TOP);
        let mut ws = site.ws();
        site.hold_the_configuration();
        site.ask();
        let new = site.starting();
        site.signal(site.main, Signal::TERM);
        assert_eq!(site.told(), "STOPPING=1");
        ws.closes(4200);
        assert_eq!(site.ended(site.main), Some(0));
        site.is_gone(new);
    });
}

#[test]
fn nobody_reads_what_the_new_process_prints() {
    on_every_backend(|backend| {
        let mut site = Site::launched(&settings(backend, TOP, ""), None, false);
        for _ in 0..2 {
            site.replace_wholly();
            site.canary().sings();
        }
    });
}
