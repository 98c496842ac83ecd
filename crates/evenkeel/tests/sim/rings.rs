//! The io_uring driver over a simulated ring, under what a ring can do to it.

use std::net::SocketAddr;

use evenkeel::Backend;
use evenkeel::sim::{Check, Failure, Fault, World};

use crate::streams::{KERNEL, exchange, serve};

/// What rings alone do.
const RING: &[Fault] = &[
    Fault::CompletionOverflow,
    Fault::MultishotEnds,
    Fault::NoRingBuffers,
    Fault::CancelRace,
    Fault::SubmitFails,
];

fn every_byte(world: &mut World, faults: &[&[Fault]]) -> Result<(), Failure> {
    world.set_backend(Backend::IoUring);
    world.swarm(&faults.concat());
    let server = world.host("server", serve);
    let address = SocketAddr::new(world.ip(server), 7000);
    for i in 0..4 {
        world.client(&format!("client {i}"), move || exchange(address, 20_000));
    }
    world.run()
}

#[test]
fn i35_every_byte_arrives_by_rings() {
    Check::new().seeds(0..100).run(|world| every_byte(world, &[RING, KERNEL]));
}
