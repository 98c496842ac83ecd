//! What crosses between descriptor tables besides accepted connections: parcels, adopted sockets, copies of listeners.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::channel;

use evenkeel::group::{Group, Share};
use evenkeel::net::{Limits, ListenOptions, Parcel, Stream};
use evenkeel::{Backend, Handle};

use crate::support::*;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (connect(listener.local_addr().unwrap()), listener.accept().unwrap().0)
}

/// A connection of the first loop's, packed, on this thread, which has another table.
fn abroad(group: &Group, near: TcpStream) -> Parcel {
    let (send, parcel) = channel();
    let pack = move |_: &Handle, fd: io::Result<OwnedFd>| {
        send.send(Stream::from_fd(fd.unwrap()).unwrap().pack().unwrap()).unwrap();
    };
    group.hand_over(0, near.into(), pack).unwrap();
    parcel.recv().unwrap()
}

on_every_backend! {
    i43_a_parcel_goes_round_the_loops_and_loses_nothing,
    a_parcel_that_was_carried_by_number_is_refused,
    i36_a_parcel_dropped_elsewhere_is_reset_by_its_loop,
    adopted_sockets_serve,
    copies_of_listeners_are_the_listeners,
}

/// Answers eight bytes, and goes to the next loop with the rest.
fn go_round(parcel: Parcel, handle: &Handle, remotes: Vec<evenkeel::Remote>, left: usize) {
    let mut stream = parcel.unpack(handle).unwrap();
    let task = async move {
        let mut eight = [0; 8];
        stream.read_exact(&mut eight).await.unwrap();
        stream.write_all(&eight).await.unwrap();
        if left == 1 {
            stream.flush().await.unwrap();
            return;
        }
        let to = remotes[left % remotes.len()].clone();
        let arrive = move |handle: &Handle, parcel| go_round(parcel, handle, remotes, left - 1);
        stream.pack().unwrap().send(&to, arrive).unwrap();
    };
    handle.spawn(task).detach();
}

fn i43_a_parcel_goes_round_the_loops_and_loses_nothing(backend: Backend) {
    const ROUNDS: usize = 60;
    let group = private_on(backend, 3);
    let (mut far, near) = pair();
    let sent: Vec<u8> = (0..ROUNDS * 8).map(|at| (at ^ (at >> 8)) as u8).collect();
    far.write_all(&sent).unwrap();
    let remotes = group.remotes().to_vec();
    let begin = move |handle: &Handle, fd: io::Result<OwnedFd>| {
        let parcel = Stream::from_fd(fd.unwrap()).unwrap().pack().unwrap();
        go_round(parcel, handle, remotes, ROUNDS);
    };
    group.hand_over(0, near.into(), begin).unwrap();
    let mut back = Vec::new();
    far.read_to_end(&mut back).unwrap();
    assert!(back == sent);
    join(group);
}

fn a_parcel_that_was_carried_by_number_is_refused(backend: Backend) {
    let group = private_on(backend, 2);
    let (mut far, near) = pair();
    let parcel = abroad(&group, near);
    // From here there is no way, and the other loop cannot use the number.
    let refused = parcel.send(&group.remote(1), |_, _| unreachable!("there is no way")).unwrap_err();
    assert_eq!(refused.error.kind(), io::ErrorKind::Unsupported);
    let unpack = move || async move {
        let refused = refused.parcel.unpack(&Handle::current()).unwrap_err();
        assert_eq!(refused.error.kind(), io::ErrorKind::Unsupported);
        refused.parcel
    };
    let parcel = group.spawn_on(1, unpack).unwrap().wait().unwrap();
    // At home it goes on.
    let serve = move || async move {
        let mut stream = parcel.unpack(&Handle::current()).unwrap();
        stream.read_with(|bytes, reply| reply.write(bytes)).await.unwrap();
        stream.flush().await.unwrap();
    };
    let answer = group.spawn_on(0, serve).unwrap();
    ping(&mut far).unwrap();
    answer.wait().unwrap();
    join(group);
}

fn i36_a_parcel_dropped_elsewhere_is_reset_by_its_loop(backend: Backend) {
    let group = private_on(backend, 2);
    let (mut far, near) = pair();
    let number = near.as_raw_fd();
    let parcel = abroad(&group, near);
    let mine: Vec<_> = (0..40).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let before = descriptors();
    drop(parcel);
    assert_eq!(descriptors(), before, "no number of this table was closed, {number} or another");
    assert!(is_turned_away(&mut far));
    drop(mine);
    // And one that is dropped on another loop.
    let (mut far, near) = pair();
    let parcel = abroad(&group, near);
    group.remote(1).run(move |_| drop(parcel)).unwrap();
    assert!(is_turned_away(&mut far));
    join(group);
}

fn adopted_sockets_serve(backend: Backend) {
    for share in SHARES {
        let group = private_on(backend, 3);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let (options, limits) = (ListenOptions::default(), Limits::default());
        let listener =
            group.adopt(vec![socket.into()], &options, &limits, share, |_, _| Echo::default()).unwrap();
        let mut peers: Vec<_> = (0..12).map(|_| connect(addr)).collect();
        peers.iter_mut().for_each(|peer| ping(peer).unwrap());
        assert_eq!(connections(&listener).iter().sum::<usize>(), 12);
        listener.close().unwrap();
        settle(&group);
        settle(&group);
        TcpStream::connect(addr).expect_err("no copy is left that listens");
        join(group);
    }
}

fn copies_of_listeners_are_the_listeners(backend: Backend) {
    for share in SHARES {
        let group = private_on(backend, 2);
        let listener = echo(&group, share);
        let addr = tcp(&listener);
        let copies = listener.wait_sockets().unwrap();
        assert_eq!(copies.len(), if share == Share::ReusePort { 2 } else { 1 });
        listener.close().unwrap();
        settle(&group);
        settle(&group);
        // They are this thread's, and listen on.
        let peer = connect(addr);
        let from = peer.local_addr().unwrap();
        let accepted = copies.into_iter().map(TcpListener::from).find_map(|copy| {
            copy.set_nonblocking(true).unwrap();
            copy.accept().ok()
        });
        assert_eq!(accepted.unwrap().1, from);
        join(group);
    }
}
