//! The hub in simulated worlds: whatever kernels, networks and clients do, each subscriber gets what it is to get, once, in order,
//! and nobody else does.

#![allow(missing_docs, unreachable_pub)]

mod hub_world;

use evenkeel::Backend;
use evenkeel::sim::Check;
use hub_world::{QUIRKS, Scene, TROUBLE};

#[test]
fn i44_quiet_worlds() {
    Check::new().seeds(0..3).run(|world| Scene::default().run(world).map(drop));
}

#[test]
fn i44_quirky_kernels() {
    Check::new().seeds(0..10).run(|world| {
        world.swarm(QUIRKS);
        Scene::default().run(world).map(drop)
    });
}

#[test]
fn i44_to_i47_everything_at_once() {
    for backend in [Backend::Sim, Backend::Epoll, Backend::Poll] {
        Check::new().seeds(0..10).run(|world| {
            world.set_backend(backend);
            world.swarm(QUIRKS);
            world.swarm(TROUBLE);
            Scene::everything().run(world).map(drop)
        });
    }
}
