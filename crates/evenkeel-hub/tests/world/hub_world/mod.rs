//! A world with a hub in it: subscribers, publishers, event streams and hostile clients, each on simulated hosts, who write
//! down what they see, and a judge who compares.
//!
//! The tests beside this and the example `hub_world` make such worlds.

pub mod check;
pub mod follower;
pub mod history;
pub mod hostile;
pub mod judge;
pub mod publisher;
pub mod scenes;
pub mod setup;
pub mod subscriber;
pub mod wire;

use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::sim::{Failure, Fault, Host, World};
use evenkeel_hub::config::Config;
use fastrand::Rng;

use follower::Follower;
use hostile::Harm;
use publisher::Publisher;
use setup::{APPS, PORT, Phase, Shared};
use subscriber::Subscriber;

/// What kernels and networks do without anybody having done wrong.
pub const QUIRKS: &[Fault] = &[
    Fault::ShortRead,
    Fault::ShortWrite,
    Fault::WouldBlock,
    Fault::SpuriousReadable,
    Fault::SpuriousWritable,
    Fault::SpuriousWake,
    Fault::Coalesced,
    Fault::Shuffled,
    Fault::Truncated,
    Fault::Interrupted,
    Fault::TimerSlack,
    Fault::CompletionOverflow,
    Fault::MultishotEnds,
    Fault::NoRingBuffers,
    Fault::CancelRace,
    Fault::SubmitFails,
];

/// What ends connections, or keeps them waiting.
pub const TROUBLE: &[Fault] = &[
    Fault::StaleEvent,
    Fault::TooManyFiles,
    Fault::FileTableFull,
    Fault::NoBuffers,
    Fault::AcceptAborted,
    Fault::NumberReused,
    Fault::Reset,
    Fault::EarlyEnd,
    Fault::ResetAfterEnd,
    Fault::ConnectFails,
    Fault::Delay,
    Fault::Clog,
    Fault::Swizzle,
    Fault::Partition,
    Fault::BacklogFull,
    Fault::WallClockJump,
];

/// What a world has in it.
pub struct Scene {
    pub config: Config,
    /// Loops of the hub.
    pub loops: usize,
    /// Machines with clients, and WebSocket clients on each.
    pub machines: usize,
    pub subscribers: usize,
    /// Event streams on each machine.
    pub followers: usize,
    pub publishers: usize,
    pub harms: Vec<Harm>,
    /// How long faults strike.
    pub storm: Duration,
    /// How long messages are at most.
    pub len: usize,
    /// Between two messages of one publisher, in milliseconds.
    pub publish_pause: u64,
    /// Between two acts of one client, in milliseconds.
    pub act_pause: u64,
    pub restless: bool,
    pub clock_jumps: bool,
    pub sleeps: bool,
    /// The network breaks nothing and delays nothing, so deadlines are kept.
    pub steady: bool,
}

impl Default for Scene {
    fn default() -> Self {
        Scene {
            config: setup::config(),
            loops: 1,
            machines: 3,
            subscribers: 6,
            followers: 2,
            publishers: 2,
            harms: Vec::new(),
            storm: Duration::from_secs(20),
            len: 300,
            publish_pause: 400,
            act_pause: 500,
            restless: true,
            clock_jumps: false,
            sleeps: false,
            steady: false,
        }
    }
}

/// The channels of each application.
pub fn channels() -> Vec<String> {
    [
        "news",
        "cache-weather",
        "private-room",
        "private-encrypted-safe",
        "presence-lobby",
        "presence-cache-hall",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What must hold of a world between two parts of its run.
///
/// # Panics
/// If it does not; the check of worlds tells the seed.
pub fn demand(world: &World, holds: bool, why: impl FnOnce() -> String) {
    assert!(holds, "after {:?}: {}", world.elapsed(), why());
}

/// A world that is being run.
pub struct Stage {
    pub shared: Rc<Shared>,
    pub hub: Host,
}

impl Scene {
    /// Puts everybody in their places.
    pub fn set(&self, world: &mut World) -> Stage {
        let mut shared = Shared::new(self.config.clone());
        (shared.clock_jumps, shared.sleeps) = (self.clock_jumps || self.sleeps, self.sleeps);
        shared.steady = self.steady;
        let shared = Rc::new(shared);
        let of_hub = shared.clone();
        let hub = world.host("hub", move || setup::serve(of_hub.clone()));
        world.set_loops(hub, self.loops);
        let address = SocketAddr::new(world.ip(hub), PORT);
        for machine in 0..self.machines {
            let mut all: Vec<Subscriber> =
                (0..self.subscribers).map(|n| self.subscriber(address, machine, n)).collect();
            all.shrink_to_fit();
            let followers: Vec<_> = (0..self.followers).map(|n| self.follower(address, machine, n)).collect();
            let shared = shared.clone();
            world.client(&format!("clients {machine}"), move || {
                clients(shared.clone(), all.clone(), followers.clone())
            });
        }
        let publishers: Vec<_> = (0..self.publishers).map(|n| self.publisher(address, n)).collect();
        let of = shared.clone();
        world.client("publishers", move || publish(of.clone(), publishers.clone()));
        if !self.harms.is_empty() {
            let (of, harms) = (shared.clone(), self.harms.clone());
            world.client("hostile", move || harm(of.clone(), address, harms.clone()));
        }
        let of = shared.clone();
        world.client("judge", move || judge::judge(of.clone(), address));
        Stage { shared, hub }
    }

    /// The same, with the hub on so many loops, which share its port in a way by chance.
    pub fn on_loops(mut self, dice: &mut Rng, loops: impl RangeBounds<usize>) -> Scene {
        // The third of them mostly uses one loop.
        const WAYS: [&str; 5] = ["acceptor", "reuse-port", "shared", "acceptor", "reuse-port"];
        self.loops = dice.usize(loops);
        self.config.server.share = WAYS[dice.usize(..WAYS.len())].to_owned();
        self
    }

    fn subscriber(&self, hub: SocketAddr, machine: usize, n: usize) -> Subscriber {
        let app = n % APPS;
        let all = channels();
        // Neighbours share some channels.
        let wanted = (0..3 + n % 2).map(|i| all[(machine + n + i * 2) % all.len()].clone());
        let mut wanted: Vec<String> = wanted.collect();
        wanted.sort_unstable();
        wanted.dedup();
        // Some are there twice, as those are who have two tabs open; with the same channels.
        let twice = matches!(n % 6, 2 | 4);
        let user = if twice { format!("a{app}-{machine}-both") } else { format!("a{app}-{machine}-{n}") };
        Subscriber {
            hub,
            app,
            user,
            channels: wanted,
            len: self.len,
            pause: self.act_pause,
            restless: self.restless,
            // Who comes back cannot be seen to have been forgotten, so some do not.
            stays: !self.restless || n % 6 != 5,
            first: Duration::from_millis(300 + 37 * n as u64),
        }
    }

    fn follower(&self, hub: SocketAddr, machine: usize, n: usize) -> Follower {
        let all = ["news", "private-room", "private-encrypted-safe"];
        let channels = (0..=(machine + n) % 3).map(|i| all[i].to_owned()).collect();
        Follower {
            hub,
            app: n % APPS,
            channels,
            restless: self.restless,
            first: Duration::from_millis(300 + 53 * n as u64),
        }
    }

    fn publisher(&self, hub: SocketAddr, n: usize) -> Publisher {
        Publisher { hub, app: n % APPS, channels: channels(), len: self.len, pause: self.publish_pause }
    }

    /// A storm, then everybody is to recover, and everything must be as it should.
    pub fn run(&self, world: &mut World) -> Result<Rc<Shared>, Failure> {
        let stage = self.set(world);
        world.run_for(self.storm)?;
        self.end(world, &stage)?;
        Ok(stage.shared)
    }

    /// The storm is over.
    pub fn end(&self, world: &mut World, stage: &Stage) -> Result<(), Failure> {
        world.calm();
        stage.shared.phase.set(Phase::Settle);
        world.run_for(Duration::from_secs(40))?;
        stage.shared.phase.set(Phase::Still);
        let limit = world.elapsed() + Duration::from_secs(300);
        world.set_limit(limit);
        world.run()
    }
}

type Outcome = std::io::Result<()>;

/// The program of a machine with many clients.
async fn clients(shared: Rc<Shared>, subscribers: Vec<Subscriber>, followers: Vec<Follower>) -> Outcome {
    let mut all = Vec::new();
    for who in subscribers {
        all.push(evenkeel::spawn(subscriber::subscriber(shared.clone(), who)));
    }
    for who in followers {
        all.push(evenkeel::spawn(follower::follower(shared.clone(), who)));
    }
    for one in all {
        one.await.map_err(std::io::Error::other)?;
    }
    Ok(())
}

async fn publish(shared: Rc<Shared>, publishers: Vec<Publisher>) -> Outcome {
    let all: Vec<_> = publishers
        .into_iter()
        .map(|who| evenkeel::spawn(publisher::publisher(shared.clone(), who)))
        .collect();
    for one in all {
        one.await.map_err(std::io::Error::other)?;
    }
    Ok(())
}

async fn harm(shared: Rc<Shared>, hub: SocketAddr, harms: Vec<Harm>) -> Outcome {
    let each = harms
        .into_iter()
        .enumerate()
        .map(|(n, harm)| evenkeel::spawn(hostile::hostile(shared.clone(), hub, n % APPS, harm, channels())));
    let all: Vec<_> = each.collect();
    for one in all {
        one.await.map_err(std::io::Error::other)?;
    }
    Ok(())
}
