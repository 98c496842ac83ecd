//! The io_uring driver over a simulated ring, under what a ring can do to it.

use std::time::Duration;

use evenkeel::sim::{Check, Failure, Fault, World};
use evenkeel::{Backend, time};

use crate::streams::{KERNEL, client, serve};

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
    let ip = world.ip(server);
    for i in 0..4 {
        world.client(&format!("client {i}"), move || async move {
            time::sleep(Duration::from_millis(1)).await;
            client(ip, 20_000).await
        });
    }
    world.run()
}

#[test]
fn i35_every_byte_arrives_by_rings() {
    Check::new().seeds(0..100).run(|world| every_byte(world, &[RING, KERNEL]));
}
