//! What happens to whole hosts by chance: cuts, kills, and sleep.

use std::time::Duration;

use fastrand::Rng;

use super::fault::Fault;
use super::world::World;

/// The next thing that may happen, and when.
#[derive(Debug, Default)]
pub(crate) struct Chaos {
    dice: Rng,
    next: Option<u64>,
}

/// Nanoseconds between two looks, at most.
const PAUSE: u64 = 500_000_000;

impl Chaos {
    pub(super) fn new(seed: u64) -> Self {
        Chaos { dice: Rng::with_seed(seed ^ 0x0063_6861_6f73), next: Some(PAUSE) }
    }

    /// When it looks next; none in a calm world.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }

    /// Does what is due.
    pub(super) fn act(mut self, world: &mut World, now: u64) -> Self {
        const KINDS: [Fault; 5] =
            [Fault::Partition, Fault::Swizzle, Fault::Kill, Fault::Suspend, Fault::WallClockJump];
        let wanted = {
            let kernel = world.sim().kernel.borrow();
            kernel.faults.are_on() && KINDS.iter().any(|kind| kernel.faults.rate(*kind) > 0.0)
        };
        if !wanted {
            self.next = None;
            return self;
        }
        if self.next.is_some_and(|next| next > now) {
            return self;
        }
        for kind in KINDS {
            if world.sim().kernel.borrow_mut().strikes(kind) {
                self.strike(kind, world);
            }
        }
        self.next = Some(world.sim().kernel.borrow().now + self.dice.u64(1..PAUSE));
        self
    }

    fn strike(&mut self, kind: Fault, world: &mut World) {
        let all = world.all();
        let millis = |dice: &mut Rng, most| Duration::from_millis(dice.u64(1..most));
        match kind {
            Fault::Partition => {
                if let (Some(a), Some(b)) = (self.dice.choice(&all), self.dice.choice(&all)) {
                    let time = millis(&mut self.dice, 20_000);
                    world.partition(*a, *b, time);
                }
            }
            Fault::Swizzle => {
                // Cut off one by one; since each cut has a length of its own, they end in another order.
                let mut some = all.clone();
                self.dice.shuffle(&mut some);
                some.truncate(self.dice.usize(1..=all.len().min(8)));
                for a in some {
                    for b in &all {
                        let time = millis(&mut self.dice, 5_000);
                        world.partition(a, *b, time);
                    }
                }
            }
            Fault::Kill => {
                if let Some(host) = self.dice.choice(world.servers()) {
                    let pause = millis(&mut self.dice, 3_000);
                    if self.dice.bool() {
                        world.kill(host, pause);
                    } else {
                        world.crash(host, pause);
                    }
                }
            }
            Fault::Suspend => {
                let hours = Duration::from_secs(self.dice.u64(60..12 * 3600));
                world.suspend(hours);
            }
            _ => {
                let jump = self.dice.i64(-400 * 86_400..400 * 86_400);
                world.jump_wall_clock(jump);
            }
        }
    }
}
