//! The same calls on the running kernel and on the model, which must answer alike.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rustix::io::Errno;

use super::*;
use crate::sim::net::Network;
use crate::sim::sys::Sim;
use crate::sys::{PollEntry, Real, Sys, poll_bits};

/// Random runs of each comparison.
const RUNS: u64 = 300;
const CALLS: usize = 120;

fn simulated(seed: u64) -> SimSys {
    let mut kernel = Kernel::new(seed, Network::immediate(), false);
    let host = kernel.add_host("one");
    let sim = Sim::new(kernel);
    let id = sim.add_loop(host, false);
    SimSys::new(sim, host, id)
}

/// A descriptor of both.
#[derive(Clone, Copy, Debug)]
struct Both {
    real: Fd,
    sim: Fd,
}

/// Bytes, in short.
struct Bytes(Vec<u8>);

impl Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = self.0.iter().fold(0u32, |sum, byte| sum.rotate_left(3) ^ u32::from(*byte));
        write!(f, "{} bytes {sum:x}", self.0.len())
    }
}

struct Arms {
    sim: SimSys,
    calls: Vec<String>,
    dice: Rng,
    seed: u64,
    open: Vec<Both>,
}

fn code(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("{:?}", Errno::from_raw_os_error(code)),
        None => format!("{:?}", error.kind()),
    }
}

impl Arms {
    fn new(seed: u64) -> Self {
        Arms { sim: simulated(seed), calls: Vec::new(), dice: Rng::with_seed(seed), seed, open: Vec::new() }
    }

    /// Makes a call on both, and looks whether they agree.
    fn both<T: Debug, U: Debug>(
        &mut self,
        what: String,
        at: Both,
        call: impl Fn(&dyn Sys, Fd, bool) -> io::Result<(T, U)>,
    ) -> Option<(T, T)> {
        let real = call(&Real, at.real, true);
        let sim = call(&self.sim, at.sim, false);
        self.sim.sim.settle();
        let seen = |result: &io::Result<(T, U)>| match result {
            Ok((_, seen)) => format!("{seen:?}"),
            Err(e) => code(e),
        };
        let (expected, got) = (seen(&real), seen(&sim));
        self.calls.push(format!("{what} -> {expected}"));
        assert_eq!(got, expected, "seed {}, the last of\n{}", self.seed, self.calls.join("\n"));
        real.ok().zip(sim.ok()).map(|((real, _), (sim, _))| (real, sim))
    }

    fn make(&mut self, what: &str, call: impl Fn(&dyn Sys) -> io::Result<Fd>) -> Both {
        let nothing = Both { real: -1, sim: -1 };
        let made = self.both(what.into(), nothing, |sys, _, _| Ok((call(sys)?, ())));
        let (real, sim) = made.unwrap();
        self.open.push(Both { real, sim });
        Both { real, sim }
    }

    fn make_two(&mut self, call: impl Fn(&dyn Sys) -> io::Result<(Fd, Fd)>) -> [Both; 2] {
        let (a, b) = (call(&Real).unwrap(), call(&self.sim).unwrap());
        let two = [Both { real: a.0, sim: b.0 }, Both { real: a.1, sim: b.1 }];
        self.open.extend(two);
        two
    }

    fn poll(&mut self, at: Both) {
        self.both(format!("poll {}", at.sim), at, |sys, fd, _| {
            let events = poll_bits::IN | poll_bits::OUT | poll_bits::RDHUP;
            let mut one = [PollEntry { fd, events, revents: 0 }];
            sys.poll(&mut one, Some(Duration::ZERO))?;
            Ok(((), one[0].revents))
        });
    }

    fn close(&mut self, at: Both) {
        self.calls.push(format!("close {}", at.sim));
        self.open.retain(|open| open.sim != at.sim);
        Real.close(at.real);
        self.sim.close(at.sim);
        self.sim.sim.settle();
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let n = self.dice.usize(..=most);
        let first = self.dice.u8(..);
        (0..n).map(|i| first.wrapping_add(i as u8)).collect()
    }

    fn recv(&mut self, at: Both, most: usize) {
        self.both(format!("recv {most} at {}", at.sim), at, |sys, fd, _| {
            let mut into = vec![0; most];
            let n = sys.recv(fd, &mut into)?;
            into.truncate(n);
            Ok(((), Bytes(into)))
        });
    }
}

impl Arms {
    /// Reads all that there is: what buffers hold is not the same to the byte.
    fn drain(&mut self, sockets: &[Both]) {
        for socket in sockets {
            for _ in 0..64 {
                let got = self.both(format!("drain {}", socket.sim), *socket, |sys, fd, _| {
                    let mut into = vec![0; 3_000];
                    let n = sys.recv(fd, &mut into)?;
                    into.truncate(n);
                    Ok((n, Bytes(into)))
                });
                // The end of sequenced packets is read for ever.
                if got.is_none_or(|(n, _)| n == 0) {
                    break;
                }
            }
        }
    }
}

impl Drop for Arms {
    fn drop(&mut self) {
        for at in std::mem::take(&mut self.open) {
            Real.close(at.real);
            self.sim.close(at.sim);
        }
    }
}

#[test]
fn pipes_are_as_the_kernels() {
    for seed in 0..RUNS / 6 {
        let mut arms = Arms::new(seed);
        let [read, write] = arms.make_two(|sys| sys.pipe());
        let largest = [10, 5_000, 30_000, 100_000][arms.dice.usize(..4)];
        let mut ends = vec![read, write];
        for _ in 0..CALLS {
            match arms.dice.u8(..20) {
                0..8 if ends.iter().any(|end| end.sim == write.sim) => {
                    let bytes = arms.bytes(largest);
                    let what = format!("write {}", bytes.len());
                    arms.both(what, write, |sys, fd, _| Ok(((), sys.write(fd, &bytes)?)));
                }
                8 if ends.iter().any(|end| end.sim == write.sim) => {
                    let (a, b) = (arms.bytes(largest), arms.bytes(largest));
                    let what = format!("write {} and {}", a.len(), b.len());
                    arms.both(what, write, |sys, fd, _| {
                        let slices = [io::IoSlice::new(&a), io::IoSlice::new(&b)];
                        Ok(((), sys.write_vectored(fd, &slices)?))
                    });
                }
                9..17 if ends.iter().any(|end| end.sim == read.sim) => {
                    let most = arms.dice.usize(..=largest);
                    arms.both(format!("read {most}"), read, |sys, fd, _| {
                        let mut into = vec![0; most];
                        let n = sys.read(fd, &mut into)?;
                        into.truncate(n);
                        Ok(((), Bytes(into)))
                    });
                }
                17 if arms.dice.u8(..20) == 0 && !ends.is_empty() => {
                    let at = arms.dice.usize(..ends.len());
                    let end = ends.swap_remove(at);
                    arms.close(end);
                }
                _ => {
                    for end in ends.clone() {
                        arms.poll(end);
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_spliced_arrives() {
    for seed in 0..50 {
        let mut arms = Arms::new(seed);
        let [a, b] = arms.make_two(|sys| sys.socket_pair());
        let [c, d] = arms.make_two(|sys| sys.socket_pair());
        let [read, write] = arms.make_two(|sys| sys.pipe());
        let bytes: Vec<u8> = (0..40_000).map(|_| arms.dice.u8(..)).collect();
        let sim = arms.sim.clone();
        for (sys, real) in [(&Real as &dyn Sys, true), (&sim, false)] {
            let at = |both: Both| if real { both.real } else { both.sim };
            assert_eq!(sys.splice(at(a), at(b), 10).unwrap_err().raw_os_error(), Some(22));
            assert_eq!(sys.splice(at(b), at(write), 10).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(sys.splice(at(read), at(c), 10).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let (mut sent, mut got) = (0, Vec::<u8>::new());
            while got.len() < bytes.len() {
                if sent < bytes.len() {
                    sent += sys.send(at(a), &bytes[sent..(sent + 7_000).min(bytes.len())]).unwrap();
                }
                let mut held = sys.splice(at(b), at(write), 9_000).unwrap_or(0);
                while held > 0 {
                    held -= sys.splice(at(read), at(c), held).unwrap();
                }
                let mut into = [0; 9_000];
                let n = sys.recv(at(d), &mut into).unwrap();
                got.extend(&into[..n]);
            }
            assert_eq!(got, bytes);
            sys.shutdown(at(a), std::net::Shutdown::Write).unwrap();
            assert_eq!(sys.splice(at(b), at(write), 10).unwrap(), 0);
        }
    }
}

/// Names that no other run has.
fn name(seed: u64, number: usize) -> UnixAddr {
    static RUN: AtomicU32 = AtomicU32::new(0);
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    UnixAddr::from_abstract_name(format!("evenkeel-sim-{}-{run}-{seed}-{number}", std::process::id()))
        .unwrap()
}

fn unix_name(addr: &PacketAddr) -> Vec<u8> {
    match addr {
        PacketAddr::Unix(unix) => unix.as_abstract_name().unwrap_or_default().to_vec(),
        PacketAddr::Ip(_) => b"ip".to_vec(),
    }
}

#[test]
fn unix_datagrams_are_as_the_kernels() {
    for seed in 0..RUNS {
        let mut arms = Arms::new(seed);
        let names: Vec<UnixAddr> = (0..4).map(|n| name(seed, n)).collect();
        let mut sockets: Vec<Both> = arms.make_two(|sys| sys.packet_pair(PacketKind::UnixDatagram)).into();
        for name in &names[..3] {
            let socket = arms.make("socket", |sys| sys.packet_socket(PacketKind::UnixDatagram));
            arms.both("bind".into(), socket, |sys, fd, _| {
                Ok(((), sys.packet_bind(fd, &PacketAddr::Unix(name.clone()))?))
            });
            sockets.push(socket);
        }
        for call in 0..CALLS {
            if call % 40 == 0 {
                arms.drain(&sockets);
            }
            let Some(at) = arms.dice.choice(&sockets).copied() else { break };
            let to = PacketAddr::Unix(arms.dice.choice(&names).unwrap().clone());
            match arms.dice.u8(..24) {
                0..8 => {
                    let (bytes, named) = (arms.bytes(200), arms.dice.bool());
                    let what = format!("send {} at {} to {:?}", bytes.len(), at.sim, named.then_some(&to));
                    arms.both(what, at, |sys, fd, _| {
                        Ok(((), sys.packet_send(fd, &bytes, named.then_some(&to))?))
                    });
                }
                8..14 => {
                    let most = arms.dice.usize(..2_500);
                    arms.recv(at, most);
                }
                14..17 => {
                    arms.both(format!("receive at {}", at.sim), at, |sys, fd, _| {
                        let got = sys.recv_with_fds(fd, &mut [0; 500], 1)?;
                        let from = got.from.as_ref().map(unix_name).unwrap_or_default();
                        Ok(((), (got.len, got.truncated, from)))
                    });
                }
                17 => {
                    arms.both(format!("connect {} to {to:?}", at.sim), at, |sys, fd, _| {
                        Ok(((), sys.packet_connect(fd, &to)?))
                    });
                }
                18 => {
                    arms.both(format!("names of {}", at.sim), at, |sys, fd, _| {
                        Ok(((), (unix_name(&sys.packet_local(fd)?), unix_name(&sys.packet_peer(fd)?))))
                    });
                }
                19 if arms.dice.u8(..10) == 0 => {
                    sockets.retain(|socket| socket.sim != at.sim);
                    arms.close(at);
                }
                _ => arms.poll(at),
            }
        }
    }
}

#[test]
fn sequenced_packets_are_as_the_kernels() {
    for seed in 0..RUNS {
        let mut arms = Arms::new(seed);
        let at = PacketAddr::Unix(name(seed, 0));
        let listener = arms.make("socket", |sys| sys.packet_socket(PacketKind::UnixSeqpacket));
        arms.both("bind".into(), listener, |sys, fd, _| Ok(((), sys.packet_bind(fd, &at)?)));
        arms.both("listen".into(), listener, |sys, fd, _| Ok(((), sys.packet_listen(fd, 3)?)));
        let mut ends: Vec<Both> = arms.make_two(|sys| sys.packet_pair(PacketKind::UnixSeqpacket)).into();
        for call in 0..CALLS {
            if call % 10 == 0 {
                arms.drain(&ends);
            }
            let Some(end) = arms.dice.choice(&ends).copied() else { break };
            match arms.dice.u8(..24) {
                0..8 => {
                    let bytes = [vec![7], arms.bytes(1_500)].concat();
                    arms.both(format!("send {} at {}", bytes.len(), end.sim), end, |sys, fd, _| {
                        Ok(((), sys.packet_send(fd, &bytes, None)?))
                    });
                }
                8..15 => {
                    let most = arms.dice.usize(..2_000);
                    arms.recv(end, most);
                }
                15 => {
                    let client = arms.make("socket", |sys| sys.packet_socket(PacketKind::UnixSeqpacket));
                    arms.both(format!("connect {}", client.sim), client, |sys, fd, _| {
                        Ok(((), sys.packet_connect(fd, &at)?))
                    });
                    ends.push(client);
                }
                16 => {
                    let call = |sys: &dyn Sys, fd, _| Ok((sys.accept(fd)?.0, ()));
                    if let Some((real, sim)) = arms.both("accept".into(), listener, call) {
                        arms.open.push(Both { real, sim });
                        ends.push(Both { real, sim });
                    }
                }
                17 if arms.dice.u8(..6) == 0 => {
                    ends.retain(|other| other.sim != end.sim);
                    arms.close(end);
                }
                18 if arms.dice.u8(..6) == 0 => {
                    let how = [std::net::Shutdown::Read, std::net::Shutdown::Write, std::net::Shutdown::Both];
                    let how = how[arms.dice.usize(..3)];
                    arms.both(format!("shut {how:?} of {}", end.sim), end, |sys, fd, _| {
                        Ok(((), sys.shutdown(fd, how)?))
                    });
                }
                19 => arms.poll(listener),
                _ => arms.poll(end),
            }
        }
    }
}

#[test]
fn udp_is_as_the_kernels() {
    for seed in 0..RUNS {
        let mut arms = Arms::new(seed);
        let ip = if seed % 2 == 0 { "127.0.0.1:0" } else { "[::1]:0" };
        let ip: SocketAddr = ip.parse().unwrap();
        let kind = if ip.is_ipv4() { PacketKind::Udp4 } else { PacketKind::Udp6 };
        let mut sockets = Vec::new();
        // By number, since both choose ports of their own.
        let mut addrs: Vec<(SocketAddr, SocketAddr)> = Vec::new();
        for _ in 0..4 {
            let socket = arms.make("socket", |sys| sys.packet_socket(kind));
            let bound = arms.both("bind".into(), socket, |sys, fd, _| {
                sys.packet_bind(fd, &PacketAddr::Ip(ip))?;
                let PacketAddr::Ip(at) = sys.packet_local(fd)? else { panic!("no address") };
                Ok((at, at.ip()))
            });
            addrs.push(bound.unwrap());
            sockets.push(socket);
        }
        for call in 0..CALLS {
            if call % 20 == 0 {
                arms.drain(&sockets);
            }
            let Some(at) = arms.dice.choice(&sockets).copied() else { break };
            let (real, sim) = *arms.dice.choice(&addrs).unwrap();
            let to = move |is_real| PacketAddr::Ip(if is_real { real } else { sim });
            let number = |addr: &PacketAddr, is_real: bool| {
                let PacketAddr::Ip(addr) = addr else { panic!("no address") };
                addrs.iter().position(|(real, sim)| addr == if is_real { real } else { sim })
            };
            match arms.dice.u8(..24) {
                0..9 => {
                    let bytes = if arms.dice.u8(..20) == 0 { vec![0; 65_600] } else { arms.bytes(2_000) };
                    let named = arms.dice.bool();
                    let what = format!("send {} at {} to {:?}", bytes.len(), at.sim, named.then_some(sim));
                    arms.both(what, at, |sys, fd, is_real| {
                        Ok(((), sys.packet_send(fd, &bytes, named.then_some(&to(is_real)))?))
                    });
                }
                9..17 => {
                    let most = arms.dice.usize(..2_500);
                    arms.both(format!("receive {most} at {}", at.sim), at, |sys, fd, is_real| {
                        let mut into = vec![0; most];
                        let (n, from) = sys.packet_recv(fd, &mut into)?;
                        into.truncate(n);
                        Ok(((), (Bytes(into), number(&from.unwrap(), is_real))))
                    });
                }
                17 => {
                    arms.both(format!("connect {} to {sim}", at.sim), at, |sys, fd, is_real| {
                        sys.packet_connect(fd, &to(is_real))?;
                        Ok(((), number(&sys.packet_peer(fd)?, is_real)))
                    });
                }
                18 if arms.dice.u8(..10) == 0 => {
                    sockets.retain(|socket| socket.sim != at.sim);
                    arms.close(at);
                }
                19 => {
                    arms.both(format!("error of {}", at.sim), at, |sys, fd, _| {
                        Ok(((), sys.take_error(fd)?.as_ref().map(code)))
                    });
                }
                _ => arms.poll(at),
            }
        }
    }
}
