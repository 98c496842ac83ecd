//! The io_uring driver over simulated rings, under what rings can do to it: handlers and tasks, floods, pauses and ends.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evenkeel::net::{Limits, ListenOptions, Listener, Stream};
use evenkeel::sim::{self, Check, Failure, Fault, Report, World};
use evenkeel::{Backend, Conn, Handle, Handler, time};

use crate::streams::{KERNEL, exchange, serve};

/// What rings alone do.
pub(crate) const RING: &[Fault] = &[
    Fault::CompletionOverflow,
    Fault::MultishotEnds,
    Fault::NoRingBuffers,
    Fault::CancelRace,
    Fault::SubmitFails,
];

/// Ports by what is served there; tasks that echo have 7000.
const ECHO: u16 = 7001;
const COUNT: u16 = 7002;
const ANSWER: u16 = 7003;
const PAUSE: u16 = 7004;

/// What `ANSWER` says to whoever says anything.
const LONG: usize = 60_000;

fn byte(at: usize) -> u8 {
    (at * 7 + at / 251) as u8
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(byte).collect()
}

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        conn.write(bytes);
    }
}

/// Says at the end how much it has got.
struct Count(usize);

impl Handler for Count {
    fn on_data(&mut self, _: &mut Conn<'_>, bytes: &[u8]) {
        for (at, b) in bytes.iter().enumerate() {
            if *b != byte(self.0 + at) {
                return sim::fail(format!("byte {} is another one than was sent (I35)", self.0 + at));
            }
        }
        self.0 += bytes.len();
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>) {
        conn.write(&self.0.to_be_bytes());
        conn.close();
    }
}

/// Answers at length and closes, whatever else comes.
struct Answer;

impl Handler for Answer {
    fn on_data(&mut self, conn: &mut Conn<'_>, _: &[u8]) {
        conn.write(&bytes(LONG));
        conn.close();
    }
}

/// Pauses whenever something comes.
struct Pause;

impl Handler for Pause {
    fn on_data(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        conn.write(bytes);
        conn.pause();
        conn.notify_after(Duration::from_micros(sim::random(3_000)));
    }

    fn on_notify(&mut self, conn: &mut Conn<'_>) {
        conn.resume();
    }
}

async fn all_services() -> io::Result<()> {
    let mut limits = Limits::default();
    (limits.idle_timeout, limits.message_deadline, limits.max_queue_age) = (None, None, None);
    (limits.max_queue_bytes, limits.close_deadline) = (64 << 20, Duration::from_secs(600));
    let mut few = limits.clone();
    few.max_connections = Some(2);
    let (h, options) = (Handle::current(), ListenOptions::default());
    h.pool(limits.clone()).listen(("0.0.0.0", ECHO), &options, |_| Echo)?;
    h.pool(limits.clone()).listen(("0.0.0.0", COUNT), &options, |_| Count(0))?;
    h.pool(limits).listen(("0.0.0.0", ANSWER), &options, |_| Answer)?;
    h.pool(few).listen(("0.0.0.0", PAUSE), &options, |_| Pause)?;
    serve().await
}

/// More than is received in one piece, all at once.
async fn flood(server: SocketAddr, n: usize) -> io::Result<()> {
    let mut stream = Stream::connect(server).await?;
    stream.write_all(&bytes(n)).await?;
    stream.shutdown().await?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await?;
    if usize::from_be_bytes(answer) != n {
        sim::fail(format!("{} of {n} bytes were counted (I35)", usize::from_be_bytes(answer)));
    }
    Ok(())
}

/// The answer arrives whole, if the end of it does: its sender closed while more was on its way to it, which may reset it.
async fn talk_over(server: SocketAddr) -> io::Result<()> {
    let mut stream = Stream::connect(server).await?;
    let (mut read, mut write) = stream.split();
    let talking = async {
        // Refused at some time, which is no failure.
        for _ in 0..20 {
            if write.write_all(&bytes(500)).await.is_err() {
                break;
            }
            time::sleep(Duration::from_micros(sim::random(300))).await;
        }
        let _ = write.shutdown().await;
    };
    let reading = async {
        let mut got = Vec::new();
        let mut buffer = [0; 3000];
        loop {
            match read.read(&mut buffer).await {
                Ok(0) => return (got, true),
                Ok(n) => got.extend_from_slice(&buffer[..n]),
                Err(_) => return (got, false),
            }
        }
    };
    let (_, (got, ended)) = futures_util::future::join(talking, reading).await;
    if !bytes(LONG).starts_with(&got) || ended && got.len() != LONG {
        sim::fail("the answer did not arrive whole (I30)".to_owned());
    }
    Ok(())
}

/// Comes, leaves in the middle, and comes again.
async fn fickle(server: SocketAddr) -> io::Result<()> {
    for _ in 0..5 {
        let mut stream = Stream::connect(server).await?;
        stream.write_all(&bytes(3_000)).await?;
        let mut buffer = [0; 1000];
        let wait = Duration::from_micros(sim::random(2_000));
        // The reading is given up, with what is in flight for it.
        if let Ok(read) = time::timeout(wait, stream.read(&mut buffer)).await {
            let n = read?;
            if buffer[..n] != bytes(n) {
                sim::fail("other bytes came back than were sent (I35)".to_owned());
            }
        }
    }
    Ok(())
}

pub(crate) fn everything(world: &mut World, faults: &[Fault]) -> Result<(), Failure> {
    world.set_backend(Backend::IoUring);
    world.swarm(faults);
    let large = world.seed().is_multiple_of(3);
    if large {
        world.set_buffers(1 << 20, 1 << 20);
    }
    let server = world.host("server", all_services);
    let ip = world.ip(server);
    let at = move |port| SocketAddr::new(ip, port);
    for i in 0..2 {
        world.client(&format!("tasks {i}"), move || exchange(at(7000), 10_000));
        world.client(&format!("handlers {i}"), move || exchange(at(ECHO), 10_000));
        world.client(&format!("pauses {i}"), move || exchange(at(PAUSE), 3_000));
    }
    world.client("pauses too", move || exchange(at(PAUSE), 3_000));
    world.client("flood", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        flood(at(COUNT), if large { 700_000 } else { 50_000 }).await
    });
    world.client("talks over", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        talk_over(at(ANSWER)).await
    });
    world.client("fickle", move || async move {
        time::sleep(Duration::from_millis(1)).await;
        fickle(at(ECHO)).await?;
        fickle(at(7000)).await
    });
    world.run()
}

/// Listens, lets itself be connected to, and stops listening at any moment. The world sees that no descriptor is left.
async fn come_and_go(ip: IpAddr) -> io::Result<()> {
    for _ in 0..8 {
        let mut listener = Listener::bind("0.0.0.0:0")?;
        let port = listener.local_addr()?.socket_addr().map_or(0, |at| at.port());
        let connecting: Vec<_> = (0..6)
            .map(|_| {
                evenkeel::spawn(async move {
                    // Refused, reset or ended: whoever was not accepted hears of it.
                    let mut stream = Stream::connect(SocketAddr::new(ip, port)).await?;
                    stream.read(&mut [0; 8]).await
                })
            })
            .collect();
        let wait = Duration::from_micros(sim::random(1_500));
        let accepted = time::timeout(wait, listener.accept()).await;
        time::sleep(Duration::from_micros(sim::random(300))).await;
        drop(listener);
        drop(accepted);
        for task in connecting {
            let _ = task.await.unwrap();
        }
    }
    Ok(())
}

#[test]
fn i10_i36_listeners_that_end_leave_no_descriptor() {
    let report = Check::new().seeds(0..60).run(|world| {
        world.set_backend(Backend::IoUring);
        world.swarm(&[RING, KERNEL].concat());
        let ip = IpAddr::from([10, 0, 0, 1]);
        world.client("host", move || come_and_go(ip));
        world.run()
    });
    all_have_struck(&report, RING);
}

/// A loop hears of each wake, although the poll for them ends at any time (I2, I12).
#[test]
fn i02_i12_wakes_arrive() {
    let report = Check::new().seeds(0..60).run(|world| {
        world.set_backend(Backend::IoUring);
        world.swarm(&[RING, KERNEL].concat());
        let host = world.client("host", || async {
            let loops = sim::remotes();
            for round in 0..60u64 {
                let which = sim::random(loops.len() as u64) as usize;
                let answer = loops[which].spawn(move || async move { round * 2 });
                assert_eq!(answer.unwrap().await.unwrap(), round * 2, "I7");
            }
            Ok(())
        });
        world.set_loops(host, 3);
        world.run()
    });
    all_have_struck(&report, RING);
}

fn all_have_struck(report: &Report, faults: &[Fault]) {
    // One world alone is a replay.
    for fault in faults.iter().filter(|_| report.worlds > 1) {
        assert!(report.hits(*fault) > 0, "{fault} has never struck");
    }
}

#[test]
fn i09_i10_i12_i13_i14_rings_lose_nothing() {
    let report = Check::new().seeds(0..60).run(|world| everything(world, &[RING, KERNEL].concat()));
    all_have_struck(&report, RING);
    all_have_struck(&report, KERNEL);
}

/// Each kind alone, so that none hides behind another.
#[test]
fn i09_i10_i12_i13_i14_one_kind_at_a_time_loses_nothing() {
    let report = Check::new().seeds(0..50).run(|world| {
        let kind = RING[world.seed() as usize % RING.len()];
        world.set_fault(kind, 0.3);
        everything(world, &[])
    });
    all_have_struck(&report, RING);
}
