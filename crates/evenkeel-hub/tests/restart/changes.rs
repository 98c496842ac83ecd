//! The new process has another configuration than the old one.

use super::site::{Site, settings};
use crate::support::{Ws, on_every_backend};

#[test]
fn applications_come_and_go() {
    on_every_backend(|backend| {
        let top = "drain_deadline_seconds = 3600\nloops = 2";
        let mut site = Site::start(backend, top);
        let (mut first, mut stays) = (site.ws(), site.ws());
        stays.subscribe("c");
        let mut removed: Vec<Ws> = (0..3).map(|_| Ws::open(site.addr, "key-b")).collect();
        let mut disabled = Ws::open(site.addr, "key-b");
        disabled.subscribe("c");
        removed.push(disabled);
        let other = "id = '4'\nkey = 'key-d'\nsecret = 'secret-d'";
        let toml = settings(backend, top, "").replace("id = '2'\nkey = 'key-b'\nsecret = 'secret-b'", other);
        site.configure(&toml);
        let old = site.replace();
        first.closes(4200);
        removed.iter_mut().for_each(|ws| ws.closes(4001));
        Ws::is_refused(site.addr, "/app/key-b?protocol=7", 4001);
        Ws::open(site.addr, "key-d").is_served();
        assert_eq!(site.publish("c", "1").status, 200);
        assert_eq!(stays.event("news")["data"], "1");
        // The application is disabled by the next one.
        site.signal(old, rustix::process::Signal::TERM);
        stays.closes(4200);
        assert_eq!(site.ended(old), Some(0));
        let (mut first, mut stays) = (site.ws(), site.ws());
        let mut off = Ws::open(site.addr, "key-d");
        site.configure(&toml.replace("secret = 'secret-d'", "secret = 'secret-d'\nenabled = false"));
        site.replace();
        off.closes(4003);
        first.closes(4200);
        stays.is_served();
    });
}

#[test]
fn the_number_of_loops_and_the_way_of_sharing_change() {
    on_every_backend(|backend| {
        let of = |share: &str, loops: u32| {
            let top = format!("drain_deadline_seconds = 0\nloops = {loops}\nshare = '{share}'");
            settings(backend, &top, "")
        };
        let mut site = Site::configured(&of("acceptor", 1));
        let ways = [
            ("acceptor", 2),
            ("acceptor", 4),
            ("reuse-port", 1),
            ("reuse-port", 4),
            ("reuse-port", 2),
            ("shared", 4),
            ("shared", 1),
            ("reuse-port", 4),
            ("acceptor", 2),
            ("shared", 2),
        ];
        for (share, loops) in ways {
            let (mut crowd, mut sse): (Vec<Ws>, _) = ((0..8).map(|_| site.ws()).collect(), site.sse(""));
            sse.is_caught_up();
            let mut member = site.joins("m").0;
            site.configure(&of(share, loops));
            let old = site.replace();
            crowd.iter_mut().for_each(|ws| ws.closes(4200));
            member.closes(4200);
            assert_eq!(site.ended(old), Some(0), "{share} {loops}");
            // Every socket that there was is served: who comes is, wherever the kernel puts them.
            for _ in 0..16 {
                site.canary().sings();
            }
        }
    });
}
