//! Unix sockets with boundaries and descriptors: what is sent arrives, whole, once, and nothing else is left open.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use evenkeel::net::unix::{Credentials, FdStream, Seqpacket, SeqpacketListener, UnixDatagram};
use evenkeel::net::{TcpStream, UnixListener, UnixStream};
use evenkeel::sim::blocking;
use evenkeel::{Backend, spawn, time};

use crate::asynchronous::once;
use crate::support::{assert_same, descriptors, event_loop, pattern, unique};

on_every_kernel! {
    datagrams_at_paths_and_names,
    a_full_receiver_makes_senders_wait,
    messages_keep_their_boundaries,
    a_listener_of_messages,
    i33_a_peer_that_has_gone_is_an_error,
}

// The model has no descriptors that travel, and so no streams for them.
on_every_backend! {
    descriptors_travel_by_all_three,
    a_message_that_is_too_long_says_so,
    i34_received_descriptors_are_close_on_exec,
    too_many_descriptors_are_refused,
    a_stream_with_descriptors_carries_megabytes,
    an_accepted_stream_receives_descriptors,
    everybody_knows_who_the_peer_is,
    i33_descriptors_for_a_peer_that_has_gone_are_an_error,
    sockets_of_another_kind_are_refused,
    sockets_change_hands,
}

in_processes! {
    i36_no_descriptor_is_left,
    i36_no_descriptor_is_left_where_none_can_be_had,
}

/// A path of its own for each backend's test.
fn path(name: &str, backend: Backend) -> PathBuf {
    std::env::temp_dir().join(unique(&format!("{name}-{backend}")))
}

fn datagrams_at_paths_and_names(backend: Backend) {
    let mut events = event_loop(backend);
    let path = path("datagram", backend);
    events
        .block_on(async {
            let at_path = UnixDatagram::bind(&path).unwrap();
            let name = unique(&format!("name-{backend}"));
            let name = SocketAddr::from_abstract_name(name).unwrap();
            let at_name = UnixDatagram::bind_addr(&name).unwrap();
            assert_eq!(at_path.local_addr().unwrap().as_pathname(), Some(&*path));
            assert_eq!(at_name.local_addr().unwrap().as_abstract_name(), name.as_abstract_name());
            let mut bytes = [0; 16];
            at_name.send_to(b"from a name", &path).await.unwrap();
            let (n, from) = at_path.recv_from(&mut bytes).await.unwrap();
            assert_eq!(
                (&bytes[..n], from.as_abstract_name()),
                (&b"from a name"[..], name.as_abstract_name())
            );
            at_path.send_to_addr(b"from a path", &[], &name).await.unwrap();
            let (n, from) = at_name.recv_from(&mut bytes).await.unwrap();
            assert_eq!((&bytes[..n], from.as_pathname()), (&b"from a path"[..], Some(&*path)));
            let nobody = UnixDatagram::unbound().unwrap();
            nobody.connect(&path).unwrap();
            nobody.send(b"").await.unwrap();
            let (n, from) = at_path.recv_from(&mut bytes).await.unwrap();
            assert!(n == 0 && from.is_unnamed());
            // A new one at the same path takes the place of the old.
            let again = UnixDatagram::bind(&path).unwrap();
            nobody.connect(&path).unwrap();
            nobody.send(b"again").await.unwrap();
            assert_eq!(again.recv(&mut bytes).await.unwrap(), 5);
            drop(again);
            let gone = nobody.connect(&path).unwrap_err();
            assert_eq!(gone.kind(), ErrorKind::NotFound, "the file goes with the socket");
        })
        .unwrap();
}

fn a_full_receiver_makes_senders_wait(backend: Backend) {
    let mut events = event_loop(backend);
    let path = path("full", backend);
    events
        .block_on(async {
            let receiver = UnixDatagram::bind(&path).unwrap();
            let send = |connected: bool| {
                let path = path.clone();
                spawn(async move {
                    let socket = UnixDatagram::unbound().unwrap();
                    if connected {
                        socket.connect(&path).unwrap();
                    }
                    for n in 0..200u8 {
                        if connected {
                            socket.send(&[1, n]).await.unwrap();
                        } else {
                            socket.send_to(&[0, n], &path).await.unwrap();
                        }
                    }
                })
            };
            let senders = [send(false), send(true)];
            time::sleep(Duration::from_millis(5)).await;
            assert!(senders.iter().all(|sender| !sender.is_finished()), "the queue is full");
            let (mut next, mut bytes) = ([0, 0], [0; 4]);
            while next != [200, 200] {
                assert_eq!(receiver.recv(&mut bytes).await.unwrap(), 2);
                let [from, n, ..] = bytes;
                assert_eq!(next[usize::from(from)], u32::from(n), "in order, and none is missing");
                next[usize::from(from)] += 1;
            }
        })
        .unwrap();
}

fn messages_keep_their_boundaries(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let (ours, theirs) = Seqpacket::pair().unwrap();
            let sender = spawn(async move {
                for len in 1..400 {
                    assert_eq!(ours.send(&pattern(len * 7)).await.unwrap(), len * 7);
                }
                assert_eq!(ours.send(b"").await.unwrap_err().kind(), ErrorKind::InvalidInput);
            });
            let mut bytes = [0; 4000];
            assert!(once(theirs.recv(&mut bytes)).await.is_none());
            for len in 1..400 {
                let n = theirs.recv(&mut bytes).await.unwrap();
                assert_same(&bytes[..n], &pattern(len * 7));
            }
            sender.await.unwrap();
        })
        .unwrap();
}

fn a_listener_of_messages(backend: Backend) {
    let mut events = event_loop(backend);
    let path = path("listener", backend);
    events
        .block_on(async {
            let listener = SeqpacketListener::bind(&path).unwrap();
            assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path));
            assert!(once(listener.accept()).await.is_none());
            let server = spawn(async move {
                for _ in 0..20 {
                    let conn = listener.accept().await.unwrap();
                    spawn(async move {
                        let mut bytes = [0; 64];
                        while let n @ 1.. = conn.recv(&mut bytes).await.unwrap() {
                            conn.send(&bytes[..n]).await.unwrap();
                        }
                    });
                }
            });
            let mut bytes = [0; 64];
            for _ in 0..20 {
                let conn = Seqpacket::connect(&path).unwrap();
                for word in [&b"one"[..], b"second"] {
                    conn.send(word).await.unwrap();
                    let n = conn.recv(&mut bytes).await.unwrap();
                    assert_eq!(&bytes[..n], word);
                }
            }
            server.await.unwrap();
            assert_eq!(
                Seqpacket::connect(&path).unwrap_err().kind(),
                ErrorKind::NotFound,
                "its file is gone"
            );
        })
        .unwrap();
}

/// A pipe with something in it.
fn pipe(text: &str) -> OwnedFd {
    let (from, mut to) = std::io::pipe().unwrap();
    to.write_all(text.as_bytes()).unwrap();
    from.into()
}

fn read(fd: OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

fn descriptors_travel_by_all_three(backend: Backend) {
    let mut events = event_loop(backend);
    let fds = [pipe("first"), pipe("second"), pipe("third")];
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    events
        .block_on(async {
            let mut bytes = [0; 16];
            macro_rules! travel {
                ($kind:ident) => {{
                    let (ours, theirs) = $kind::pair().unwrap();
                    assert!(once(theirs.recv_with_fds(&mut bytes, 3)).await.is_none());
                    assert_eq!(ours.send_with_fds(b"three", &fds).await.unwrap(), 5);
                    let got = theirs.recv_with_fds(&mut bytes, 3).await.unwrap();
                    assert_eq!(&bytes[..got.len], b"three");
                    assert!(!got.truncated && !got.fds_truncated);
                    let numbers: Vec<_> =
                        got.fds.iter().map(|fd| rustix::fs::fstat(fd).unwrap().st_ino).collect();
                    let wanted: Vec<_> = fds.iter().map(|fd| rustix::fs::fstat(fd).unwrap().st_ino).collect();
                    assert_eq!(numbers, wanted, "the same files, in order");
                    got.fds
                }};
            }
            let _ = travel!(Seqpacket);
            let _ = travel!(FdStream);
            let last = travel!(UnixDatagram);
            let texts: Vec<_> = last.into_iter().map(read).collect();
            assert_eq!(texts, ["first", "second", "third"]);
        })
        .unwrap();
}

fn a_message_that_is_too_long_says_so(backend: Backend) {
    let mut events = event_loop(backend);
    let fds = [pipe("first"), pipe("second"), pipe("third")];
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    events
        .block_on(async {
            let (ours, theirs) = Seqpacket::pair().unwrap();
            let mut bytes = [0; 4];
            for most in 0..=3 {
                ours.send_with_fds(b"longer", &fds).await.unwrap();
                let got = theirs.recv_with_fds(&mut bytes, most).await.unwrap();
                assert_eq!((got.len, got.truncated), (4, true));
                assert_eq!((got.fds.len(), got.fds_truncated), (most, most < 3));
            }
            ours.send(b"four").await.unwrap();
            let got = theirs.recv_with_fds(&mut bytes, usize::MAX).await.unwrap();
            assert_eq!((got.len, got.truncated, got.fds.len(), got.fds_truncated), (4, false, 0, false));
        })
        .unwrap();
}

fn i34_received_descriptors_are_close_on_exec(backend: Backend) {
    let mut events = event_loop(backend);
    let fd = pipe("");
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
    events
        .block_on(async {
            let (ours, theirs) = FdStream::pair().unwrap();
            ours.send_with_fds(b"x", &[fd.as_fd()]).await.unwrap();
            let got = theirs.recv_with_fds(&mut [0], 1).await.unwrap();
            let flags = rustix::io::fcntl_getfd(&got.fds[0]).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            for socket in [ours.into_fd().unwrap(), theirs.into_fd().unwrap()] {
                assert!(rustix::io::fcntl_getfd(&socket).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
                assert!(rustix::fs::fcntl_getfl(&socket).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
            }
        })
        .unwrap();
}

fn too_many_descriptors_are_refused(backend: Backend) {
    let mut events = event_loop(backend);
    let fd = pipe("");
    events
        .block_on(async {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            let fds: Vec<BorrowedFd<'_>> = vec![fd.as_fd(); 254];
            let error = ours.send_with_fds(b"x", &fds).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("253"), "{error}");
            ours.send_with_fds(b"x", &fds[..253]).await.unwrap();
            let got = theirs.recv_with_fds(&mut [0], 253).await.unwrap();
            assert_eq!((got.fds.len(), got.fds_truncated), (253, false));
        })
        .unwrap();
}

fn a_stream_with_descriptors_carries_megabytes(backend: Backend) {
    let mut events = event_loop(backend);
    let want = pattern(2_000_000);
    events
        .block_on(async {
            let (ours, theirs) = FdStream::pair().unwrap();
            let (sent, fd) = (want.clone(), pipe("beside"));
            let sender = spawn(async move {
                let half = sent.len() / 2;
                ours.write_all(&sent[..half]).await.unwrap();
                let n = ours.send_with_fds(&sent[half..], &[fd.as_fd()]).await.unwrap();
                ours.write_all(&sent[half + n..]).await.unwrap();
                ours.shutdown(std::net::Shutdown::Write).unwrap();
                ours.read(&mut [0; 8]).await.unwrap()
            });
            let (mut all, mut fds, mut bytes) = (Vec::new(), Vec::new(), vec![0; 10_000]);
            loop {
                let mut got = theirs.recv_with_fds(&mut bytes, 4).await.unwrap();
                if got.len == 0 {
                    break;
                }
                if !got.fds.is_empty() {
                    let with = all.len()..all.len() + got.len;
                    assert!(with.contains(&(want.len() / 2)), "with the first byte that they were sent with");
                }
                all.extend_from_slice(&bytes[..got.len]);
                fds.append(&mut got.fds);
            }
            assert_same(&all, &want);
            assert_eq!(fds.into_iter().map(read).collect::<Vec<_>>(), ["beside"]);
            theirs.write(b"").await.unwrap();
            theirs.write_all(b"done").await.unwrap();
            assert_eq!(sender.await.unwrap(), 4);
        })
        .unwrap();
}

fn an_accepted_stream_receives_descriptors(backend: Backend) {
    let mut events = event_loop(backend);
    let path = path("accepted", backend);
    events
        .block_on(async {
            let mut listener = UnixListener::bind(&*path).unwrap();
            let client = FdStream::connect(&path).unwrap();
            client.send_with_fds(b"x", &[pipe("hello").as_fd()]).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let server = FdStream::from_stream(stream).unwrap();
            let mut got = server.recv_with_fds(&mut [0; 4], 1).await.unwrap();
            assert_eq!(read(got.fds.remove(0)), "hello");
        })
        .unwrap();
}

fn everybody_knows_who_the_peer_is(backend: Backend) {
    let mut events = event_loop(backend);
    let path = path("credentials", backend);
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let me = Credentials { pid: Some(std::process::id() as i32), uid, gid };
    events
        .block_on(async {
            let (ours, _theirs) = Seqpacket::pair().unwrap();
            assert_eq!(ours.peer_credentials().unwrap(), me);
            let (ours, _theirs) = FdStream::pair().unwrap();
            assert_eq!(ours.peer_credentials().unwrap(), me);
            let (ours, _theirs) = UnixDatagram::pair().unwrap();
            assert_eq!(ours.peer_credentials().unwrap(), me);
            let mut listener = UnixListener::bind(&*path).unwrap();
            let client = UnixStream::connect(&*path).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            assert_eq!((client.peer_credentials().unwrap(), server.peer_credentials().unwrap()), (me, me));
            // Where there is none, that is said.
            let alone = UnixDatagram::unbound().unwrap();
            assert_eq!(alone.peer_credentials().unwrap_err().kind(), ErrorKind::NotConnected);
            let listener = blocking::TcpListener::bind("127.0.0.1:0").unwrap();
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            assert_eq!(tcp.peer_credentials().unwrap_err().kind(), ErrorKind::NotConnected);
        })
        .unwrap();
}

fn i33_a_peer_that_has_gone_is_an_error(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let (ours, theirs) = Seqpacket::pair().unwrap();
            let ours = Rc::new(ours);
            let reading = spawn({
                let ours = ours.clone();
                async move { ours.recv(&mut [0; 4]).await.unwrap() }
            });
            time::sleep(Duration::from_millis(1)).await;
            drop(theirs);
            assert_eq!(reading.await.unwrap(), 0);
            assert_eq!(ours.send(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            drop(theirs);
            assert_eq!(ours.send(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        })
        .unwrap();
}

fn i33_descriptors_for_a_peer_that_has_gone_are_an_error(backend: Backend) {
    let mut events = event_loop(backend);
    let fd = pipe("");
    events
        .block_on(async {
            let (ours, theirs) = Seqpacket::pair().unwrap();
            drop(theirs);
            let error = ours.send_with_fds(b"x", &[fd.as_fd()]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            let (ours, theirs) = FdStream::pair().unwrap();
            drop(theirs);
            assert_eq!(ours.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            let error = ours.send_with_fds(b"x", &[fd.as_fd()]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        })
        .unwrap();
}

fn sockets_of_another_kind_are_refused(backend: Backend) {
    let mut events = event_loop(backend);
    let datagram = || std::os::unix::net::UnixDatagram::unbound().unwrap();
    let tcp = blocking::TcpListener::bind("127.0.0.1:0").unwrap();
    events
        .block_on(async {
            let kinds = [
                FdStream::from_fd(datagram()).map(|_| ()).unwrap_err().kind(),
                Seqpacket::from_fd(datagram()).map(|_| ()).unwrap_err().kind(),
                FdStream::from_fd(tcp.into_fd().unwrap()).map(|_| ()).unwrap_err().kind(),
                UnixDatagram::bind("x".repeat(200)).map(|_| ()).unwrap_err().kind(),
            ];
            assert_eq!(kinds, [ErrorKind::InvalidInput; 4]);
            assert!(FdStream::from_fd(pipe("")).is_err());
            UnixDatagram::from_fd(datagram()).unwrap();
        })
        .unwrap();
}

fn sockets_change_hands(backend: Backend) {
    let mut events = event_loop(backend);
    let (ours, theirs) = blocking::UnixStream::pair().unwrap();
    let ours = events
        .block_on(async {
            let stream = FdStream::from_fd(ours.into_fd().unwrap()).unwrap();
            assert!(once(stream.read(&mut [0; 4])).await.is_none());
            time::sleep(Duration::from_millis(1)).await;
            stream.into_fd().unwrap()
        })
        .unwrap();
    let number = ours.as_raw_fd();
    let mut ours = blocking::UnixStream::from_fd(ours).unwrap();
    (&theirs).write_all(b"plain").unwrap();
    let mut bytes = [0; 5];
    ours.read_exact(&mut bytes).unwrap();
    assert_eq!((&bytes, ours.std().unwrap().as_raw_fd()), (b"plain", number));
}

fn i36_no_descriptor_is_left(backend: Backend) {
    drop(event_loop(backend));
    let before = descriptors();
    let fds = [pipe("first"), pipe("second"), pipe("third")];
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let (ours, theirs) = Seqpacket::pair().unwrap();
            let mut bytes = [0; 16];
            let open = descriptors().len();
            for most in 0..3 {
                ours.send_with_fds(b"three", &fds).await.unwrap();
                let got = theirs.recv_with_fds(&mut bytes, most).await.unwrap();
                assert_eq!(descriptors().len(), open + most);
                drop(got);
                // One that does not ask for descriptors gets none.
                ours.send_with_fds(b"three", &fds).await.unwrap();
                theirs.recv(&mut bytes).await.unwrap();
                assert_eq!(descriptors().len(), open);
            }
            ours.send_with_fds(b"three", &fds).await.unwrap();
        })
        .unwrap();
    drop((events, fds));
    let after = descriptors();
    assert_eq!(after.len(), before.len() + 3, "{before:?} {after:?}");
}

fn i36_no_descriptor_is_left_where_none_can_be_had(backend: Backend) {
    let mut events = event_loop(backend);
    let fd = pipe("");
    let fds = [fd.as_fd(); 8];
    events
        .block_on(async {
            let (ours, theirs) = FdStream::pair().unwrap();
            ours.send_with_fds(b"x", &fds).await.unwrap();
            // All numbers but four are taken.
            let mut taken = Vec::new();
            let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            limit.current = Some(200);
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
            while let Ok(copy) = fd.try_clone() {
                taken.push(copy);
            }
            taken.truncate(taken.len() - 4);
            let got = theirs.recv_with_fds(&mut [0; 4], 8).await.unwrap();
            assert_eq!((got.len, got.fds.len(), got.fds_truncated), (1, 4, true));
            drop(got);
            assert_eq!(
                (0..9).map_while(|_| fd.try_clone().ok()).collect::<Vec<_>>().len(),
                4,
                "they are free again"
            );
        })
        .unwrap();
}
