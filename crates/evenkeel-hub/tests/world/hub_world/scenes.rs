//! Worlds of several kinds. Each takes a world whose backend is chosen, and runs it to its end.

use std::rc::Rc;
use std::time::Duration;

use evenkeel::sim::{Failure, Fault, World};

use evenkeel_hub::server::Backlog;
use fastrand::Rng;

use super::history::History;
use super::hostile::{HARMS, Harm};
use super::setup::{self, Shared};
use super::{QUIRKS, Scene, TROUBLE, demand};

/// What a world leaves behind.
pub type Ran = Result<Rc<Shared>, Failure>;

/// Fills a world and runs it.
pub type Kind = fn(&mut World) -> Ran;

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What a scene chooses by chance, apart from what the world does.
fn dice(world: &World) -> Rng {
    Rng::with_seed(world.seed() ^ 0x7363_656e_6573)
}

/// One loop in half of the worlds, and up to four in the others.
const ONE_OR_SEVERAL: [usize; 6] = [1, 1, 1, 2, 3, 4];

fn one_or_several(world: &World, scene: Scene) -> Scene {
    let mut dice = dice(world);
    let loops = ONE_OR_SEVERAL[dice.usize(..ONE_OR_SEVERAL.len())];
    scene.on_loops(&mut dice, loops..=loops)
}

/// Nothing goes wrong.
pub fn quiet(world: &mut World) -> Ran {
    Scene::default().run(world)
}

/// Kernels do what they may do at any time. The network breaks no connection, so whatever the hub is to end has its time.
pub fn quirky(world: &mut World) -> Ran {
    world.swarm(QUIRKS);
    let harms = vec![Harm::Mute, Harm::Silent, Harm::Drips, Harm::Mute, Harm::Silent, Harm::Intrudes];
    Scene { harms, steady: true, ..Scene::default() }.run(world)
}

/// Everything goes wrong that the seed chooses: kernels, network, hostile clients; and the hub itself dies at times.
pub fn everything(world: &mut World) -> Ran {
    world.swarm(QUIRKS);
    world.swarm(TROUBLE);
    world.swarm(&[Fault::Kill]);
    let scene = Scene { harms: HARMS.to_vec(), clock_jumps: true, ..Scene::default() };
    let stage = scene.set(world);
    if world.seed().is_multiple_of(4) {
        // Fewer than there are clients.
        world.set_descriptors(stage.hub, 30);
    }
    world.run_for(scene.storm)?;
    world.set_descriptors(stage.hub, 1 << 16);
    scene.end(world, &stage)?;
    Ok(stage.shared)
}

/// As `everything`, with the hub on two to four loops: whoever publishes, whoever is told and the state are mostly on different
/// ones, and newcomers are shared in any of the ways.
pub fn spread(world: &mut World) -> Ran {
    world.swarm(QUIRKS);
    world.swarm(TROUBLE);
    world.swarm(&[Fault::Kill]);
    let scene = Scene { harms: HARMS.to_vec(), clock_jumps: true, ..Scene::default() };
    let scene = scene.on_loops(&mut dice(world), 2..=4);
    let stage = scene.set(world);
    world.run_for(scene.storm)?;
    // Of loops that wait for the same socket the kernel may always wake the same one.
    let several = stage.shared.serving.get().count_ones() > 1 || scene.config.server.share == "shared";
    demand(world, several, || "one loop has served all".to_owned());
    scene.end(world, &stage)?;
    Ok(stage.shared)
}

/// The hub, on several loops, is replaced again and again while everything goes wrong. It drains; it is killed in the
/// middle of that, or when it has ended; and a new one takes its place, to which clients come back: K43, I44, I46, I48.
pub fn replaced(world: &mut World) -> Ran {
    world.swarm(QUIRKS);
    world.swarm(TROUBLE);
    let scene = Scene { clock_jumps: true, ..Scene::default() };
    let scene = scene.on_loops(&mut dice(world), 1..=4);
    let stage = scene.set(world);
    let shared = stage.shared.clone();
    let mut dice = dice(world);
    for _ in 0..3 {
        world.run_for(Duration::from_millis(dice.u64(3_000..8_000)))?;
        shared.drain.set(Some(Duration::from_millis(dice.u64(0..6_000))));
        world.run_for(Duration::from_millis(dice.u64(0..8_000)))?;
        if dice.bool() {
            world.kill(stage.hub, Duration::from_millis(dice.u64(0..3_000)));
        } else {
            world.crash(stage.hub, Duration::from_millis(dice.u64(0..3_000)));
        }
        // If the one before has not heard of it.
        shared.drain.set(None);
    }
    world.run_for(seconds(4))?;
    scene.end(world, &stage)?;
    Ok(shared)
}

/// The hub starts on several loops while files are short, in the moment in which its clients come back: what one loop has begun
/// to listen for, another cannot, and it is all begun anew.
pub fn hampered(world: &mut World) -> Ran {
    let scene = Scene { storm: seconds(4), ..Scene::default() };
    let mut dice = dice(world);
    let scene = scene.on_loops(&mut dice, 3..=4);
    let stage = scene.set(world);
    for _ in 0..4 {
        world.run_for(seconds(2))?;
        // Who loses a connection comes back a second later.
        let pause = seconds(1) + Duration::from_micros(dice.u64(200..2_000));
        world.kill(stage.hub, pause);
        world.run_for(pause)?;
        // Its loops are made, and not what they listen at.
        world.run_for(Duration::from_micros(10))?;
        world.set_fault(Fault::FileTableFull, 0.3);
        world.run_for(Duration::from_millis(2))?;
        world.set_fault(Fault::FileTableFull, 0.0);
    }
    world.run_for(scene.storm)?;
    scene.end(world, &stage)?;
    Ok(stage.shared)
}

/// Machines sleep for hours, and clocks jump.
pub fn sleepy(world: &mut World) -> Ran {
    world.swarm(QUIRKS);
    world.set_fault(Fault::Suspend, 0.03);
    world.set_fault(Fault::WallClockJump, 0.03);
    let scene = Scene { clock_jumps: true, sleeps: true, ..Scene::default() };
    world.set_limit(seconds(1000 * 3600));
    scene.run(world)
}

/// The hub's process ends without warning, and is started again: K43, I46.
pub fn killed(world: &mut World) -> Ran {
    let scene = one_or_several(world, Scene::default());
    let stage = scene.set(world);
    for life in 1..=3 {
        world.run_for(Duration::from_millis(4_000 + world.seed() % 7 * 300))?;
        demand(world, stage.shared.lives.get() == life, || format!("{} lives", stage.shared.lives.get()));
        world.kill(stage.hub, Duration::from_millis(200 + world.seed() % 5 * 700));
    }
    world.run_for(seconds(4))?;
    scene.end(world, &stage)?;
    Ok(stage.shared)
}

/// Some clients read slowly or nothing, while the others must not notice: I47.
pub fn slow_consumers(world: &mut World) -> Ran {
    let mut config = setup::config();
    // In half of the worlds their queues are full before they are old.
    let much = world.seed().is_multiple_of(2);
    config.limits.max_queue_age_seconds = if much { 60 } else { 4 };
    config.limits.max_queue_bytes = if much { 32 << 10 } else { 4 << 20 };
    // A ring receives 64 KiB ahead of a task that does not read, so much must come.
    world.set_buffers(2 << 10, 2 << 10);
    let scene = Scene {
        config,
        machines: 2,
        len: if much { 9_000 } else { 6_000 },
        publish_pause: 80,
        subscribers: 4,
        followers: 1,
        restless: false,
        harms: vec![Harm::NeverReads; 5].into_iter().chain([Harm::ReadsSlowly; 3]).collect(),
        ..Scene::default()
    };
    let scene = one_or_several(world, scene);
    let stage = scene.set(world);
    world.run_for(seconds(14))?;
    let shared = stage.shared.clone();
    let Backlog { slow_consumers: dropped, queued_bytes: queued } = shared.backlog.get().unwrap_or_default();
    demand(world, dropped >= 8, || format!("only {dropped} slow consumers were dropped (I47)"));
    // What one message more than the limit may be, for each of those that are slow at this moment.
    let most = 8 * (scene.config.limits.max_queue_bytes + scene.len + 200);
    demand(world, queued <= most, || format!("{queued} bytes are queued for 8 slow consumers (I47)"));
    let slowest = shared.history.borrow().slowest;
    demand(world, slowest < Duration::from_millis(50), || {
        format!("a message took {slowest:?} to a client that reads (I47)")
    });
    scene.end(world, &stage)?;
    Ok(shared)
}

/// The hub drains, is replaced by a new one, and all clients come back to that, no faster than it admits: I48.
pub fn drained(world: &mut World) -> Ran {
    const DRAIN: Duration = seconds(9);
    const RATE: u32 = 20;
    world.swarm(QUIRKS);
    let mut config = setup::config();
    config.limits.accept_rate = RATE;
    let scene = Scene { config, restless: false, subscribers: 20, act_pause: 2_000, ..Scene::default() };
    let scene = one_or_several(world, scene);
    let stage = scene.set(world);
    let shared = stage.shared.clone();
    world.run_for(seconds(15))?;
    let open =
        |shared: &Shared| shared.history.borrow().connections.iter().filter(|c| c.ended.is_none()).count();
    let all = scene.machines * scene.subscribers;
    demand(world, open(&shared) == all, || format!("{} of {all} are there (I48)", open(&shared)));
    shared.drain.set(Some(DRAIN));
    world.run_for(DRAIN + seconds(2))?;
    check_drain(world, &shared, all, DRAIN);
    world.kill(stage.hub, Duration::from_millis(500));
    let again = world.elapsed();
    // A second's worth at once, and then the rate; each who was refused waits for a second, and is refused again at times.
    world.run_for(seconds(all as u64 / u64::from(RATE) * 3 + 10))?;
    demand(world, open(&shared) == all, || format!("{} of {all} have come back (I48)", open(&shared)));
    check_admission(world, &shared, again, RATE);
    scene.end(world, &stage)?;
    Ok(shared)
}

/// Everybody was told to come back, a few at a time, and nobody was cut off.
fn check_drain(world: &World, shared: &Shared, all: usize, deadline: Duration) {
    let Some((outcome, _)) = shared.drained.get() else {
        return demand(world, false, || "draining has not ended in its time (I48)".to_owned());
    };
    demand(world, outcome == evenkeel_hub::server::Drained::Completely, || format!("{outcome:?} (I48)"));
    let began = shared.draining.get().unwrap_or_default();
    let history = shared.history.borrow();
    let ended = history.connections.iter().filter(|conn| conn.ended.is_some_and(|at| at >= began));
    let mut ends: Vec<_> =
        ended.clone().filter(|c| c.close_code == Some(4200)).filter_map(|c| c.ended).collect();
    ends.sort_unstable();
    demand(world, ends.len() == all, || {
        let codes: Vec<_> = ended.map(|conn| conn.close_code).collect();
        format!("{} of {all} were told to come back: {codes:?} (I48)", ends.len())
    });
    // Nine tenths of the time are for the closes; streams have their part of them.
    let second = (all as f64 / (deadline.as_secs_f64() * 0.9)).ceil() as usize + 6;
    let most = busiest(&ends, seconds(1));
    demand(world, most <= second, || {
        format!("{most} were closed within a second, at most {second} should be (I48)")
    });
}

/// A hub that has just begun admits newcomers at its rate.
fn check_admission(world: &World, shared: &Shared, since: Duration, rate: u32) {
    let history = shared.history.borrow();
    let mut admitted: Vec<_> = history.admitted.iter().copied().filter(|at| *at >= since).collect();
    admitted.sort_unstable();
    let most = busiest(&admitted, seconds(1));
    demand(world, most <= 2 * rate as usize, || format!("{most} were admitted within a second (I48)"));
    let refused = history.told.get("status 503").copied().unwrap_or(0);
    demand(world, refused > 0, || "nobody was refused by a hub that admits few (I48)".to_owned());
}

/// The most of these times that are within any window.
fn busiest(times: &[Duration], window: Duration) -> usize {
    times
        .iter()
        .map(|from| times.iter().filter(|at| *at >= from && **at < *from + window).count())
        .max()
        .unwrap_or(0)
}

/// Every limit of the configuration is too small for what clients want: I48, I50.
pub fn overloaded(world: &mut World) -> Ran {
    world.swarm(QUIRKS);
    let mut config = setup::config();
    let most = 6;
    for app in &mut config.apps {
        app.max_connections = most;
        app.publish_rate = 2;
        (app.client_event_rate, app.client_event_burst) = (1, 2);
    }
    config.limits.max_connections = 24;
    let scene = Scene { config, subscribers: 7, publish_pause: 200, act_pause: 200, ..Scene::default() };
    let scene = one_or_several(world, scene);
    let stage = scene.set(world);
    world.run_for(scene.storm)?;
    let shared = stage.shared.clone();
    {
        let history = shared.history.borrow();
        for told in ["close 4100", "status 429", "error 4301"] {
            let times = history.told.get(told).copied().unwrap_or(0);
            demand(world, times > 0, || format!("nobody heard of {told}: {:?} (I48)", history.told));
        }
        for app in 0..setup::APPS {
            let there = at_once(&history, app);
            let followed = shared.config.apps[app].max_connections as usize;
            demand(world, there <= followed, || {
                format!("{there} were there at once, of at most {followed} (I48)")
            });
        }
    }
    scene.end(world, &stage)?;
    Ok(shared)
}

/// The most connections of an application that were open at a time.
fn at_once(history: &History, app: usize) -> usize {
    let sockets = history.connections.iter().filter(|conn| conn.app == app).map(|c| (c.opened, c.ended));
    let visits = history.followings.iter().filter(|f| f.app == app).flat_map(|f| &f.visits);
    let streams = visits.filter_map(|visit| Some((visit.live?, visit.ended)));
    let all: Vec<_> = sockets.chain(streams).collect();
    let open = |at| all.iter().filter(|(begin, end)| *begin <= at && end.is_none_or(|end| end > at)).count();
    all.iter().map(|(begin, _)| open(*begin)).max().unwrap_or(0)
}

/// Several hundred clients.
pub fn crowd(world: &mut World) -> Ran {
    world.swarm(QUIRKS);
    world.swarm(TROUBLE);
    let scene = Scene {
        machines: 10,
        subscribers: 30,
        followers: 3,
        publishers: 1,
        publish_pause: 1_000,
        act_pause: 4_000,
        storm: seconds(15),
        clock_jumps: true,
        ..Scene::default()
    };
    scene.run(world)
}
