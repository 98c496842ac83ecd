//! Messages and pipes: what arrives is what was sent, whole, whatever is lost on the way.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel::net::unix::{Seqpacket, SeqpacketListener, UnixDatagram};
use evenkeel::net::{Listener, Stream, UdpSocket, forward_both};
use evenkeel::sim::{self, Check, Failure, Fault, World};
use evenkeel::{Backend, pipe, time};

/// What a kernel may do to calls, and a network to datagrams.
const FAULTS: &[Fault] = &[
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
    Fault::Delay,
    Fault::Loss,
    Fault::Duplicate,
    Fault::TimerSlack,
];

fn datagram(number: u64) -> Vec<u8> {
    let len = (number * 37 % 1400) as usize;
    number.to_be_bytes().into_iter().chain((0..len).map(|i| (i as u64 + number) as u8)).collect()
}

async fn echo_datagrams() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:9000")?;
    let mut buffer = [0; 2000];
    loop {
        let (n, from) = socket.recv_from(&mut buffer).await?;
        socket.send_to(&buffer[..n], from).await?;
    }
}

/// Asks until it is answered, some questions one after the other.
async fn ask(server: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    let mut buffer = [0; 2000];
    for number in 0..20 {
        let question = datagram(number);
        loop {
            match socket.send(&question).await {
                Ok(_) => {}
                // Before the server is there.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(e) => return Err(e),
            }
            // Late answers to earlier questions are passed by, and those that come twice.
            let answered = async {
                loop {
                    match socket.recv(&mut buffer).await {
                        Ok(n) if buffer[..n] == question => return Ok(()),
                        Ok(n) => {
                            let of = u64::from_be_bytes(buffer[..8].try_into().unwrap());
                            assert!(of < number && buffer[..n] == datagram(of), "never sent (I35)");
                        }
                        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                        Err(e) => return Err(e),
                    }
                }
            };
            if let Ok(answered) = time::timeout(Duration::from_millis(300), answered).await {
                answered?;
                break;
            }
        }
    }
    Ok(())
}

fn asking(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(FAULTS);
    let server = world.host("server", echo_datagrams);
    let address = SocketAddr::new(world.ip(server), 9000);
    for i in 0..3 {
        world.client(&format!("client {i}"), move || ask(address));
    }
    world.run()
}

fn a_connected_socket_hears_that_nobody_is_there(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    let other = world.host("other", || async { std::future::pending().await });
    let address = SocketAddr::new(world.ip(other), 9);
    world.client("client", move || async move {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(address)?;
        socket.send(b"anybody?").await?;
        let refused = socket.recv(&mut [0; 10]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // It is told once.
        assert_eq!(socket.send(b"").await?, 0);
        Ok(())
    });
    world.run()
}

/// A socket that leaves its owner and comes back is the same one.
fn changing_owners(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.client("host", || async {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let at = socket.local_addr()?;
        let socket = UdpSocket::from_fd(socket.into_fd()?)?;
        assert_eq!(socket.local_addr()?, at);
        socket.send_to(b"myself", at).await?;
        assert_eq!(socket.recv(&mut [0; 10]).await?, 6);
        let (near, far) = Seqpacket::pair()?;
        let near = near.into_fd()?;
        far.send(b"meanwhile").await?;
        let near = Seqpacket::from_fd(near)?;
        assert_eq!(near.recv(&mut [0; 20]).await?, 9);
        let wrong = UnixDatagram::from_fd(far.into_fd()?).unwrap_err();
        assert_eq!(wrong.kind(), io::ErrorKind::InvalidInput);
        // The other end was closed with it.
        assert_eq!(near.recv(&mut [0; 20]).await?, 0);
        Ok(())
    });
    world.run()
}

#[test]
fn datagrams_do_not_cross_a_partition() {
    Check::new().seeds(0..8).run(|world| {
        let server = world.host("server", echo_datagrams);
        let address = SocketAddr::new(world.ip(server), 9000);
        let client = world.client("client", move || async move {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            time::sleep(Duration::from_millis(10)).await;
            socket.send_to(b"lost", address).await?;
            time::sleep(Duration::from_secs(20)).await;
            socket.send_to(b"found", address).await?;
            let mut buffer = [0; 10];
            let (n, from) = socket.recv_from(&mut buffer).await?;
            assert_eq!((&buffer[..n], from), (&b"found"[..], address));
            Ok(())
        });
        world.partition(client, server, Duration::from_secs(10));
        world.run()
    });
}

/// Messages of all lengths through a socket of each kind, from several tasks at once.
async fn talk_in_a_host() -> io::Result<()> {
    let listener = SeqpacketListener::bind("/run/talk")?;
    let server = evenkeel::spawn(async move {
        for _ in 0..3 {
            let socket = listener.accept().await?;
            evenkeel::spawn(async move {
                let mut buffer = [0; 2000];
                loop {
                    match socket.recv(&mut buffer).await? {
                        0 => return Ok::<_, io::Error>(()),
                        n => socket.send(&buffer[..n]).await?,
                    };
                }
            })
            .detach();
        }
        Ok::<_, io::Error>(())
    });
    let clients: Vec<_> = (0..3)
        .map(|_| {
            evenkeel::spawn(async {
                let socket = Seqpacket::connect("/run/talk")?;
                let mut buffer = [0; 2000];
                for number in 0..30 {
                    socket.send(&datagram(number)).await?;
                    let n = socket.recv(&mut buffer).await?;
                    assert_eq!(buffer[..n], datagram(number), "I35");
                }
                Ok::<_, io::Error>(())
            })
        })
        .collect();
    for task in clients {
        task.await.map_err(io::Error::other)??;
    }
    server.await.map_err(io::Error::other)??;

    let sink = UnixDatagram::bind("/run/sink")?;
    let (near, far) = UnixDatagram::pair()?;
    let sending = evenkeel::spawn(async move {
        let source = UnixDatagram::unbound()?;
        source.connect("/run/sink")?;
        for number in 0..60 {
            // More than the queue holds: this waits.
            source.send(&datagram(number)).await?;
            near.send(&datagram(number)).await?;
        }
        Ok::<_, io::Error>(())
    });
    let mut buffer = [0; 2000];
    for number in 0..60 {
        let (n, from) = sink.recv_from(&mut buffer).await?;
        assert!(from.is_unnamed() && buffer[..n] == datagram(number), "I35");
        let n = far.recv(&mut buffer).await?;
        assert_eq!(buffer[..n], datagram(number), "I35");
        time::sleep(Duration::from_micros(sim::random(300))).await;
    }
    sending.await.map_err(io::Error::other)?
}

fn talking(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(FAULTS);
    world.client("host", talk_in_a_host);
    world.run()
}

fn through_a_pipe(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(FAULTS);
    world.client("host", || async {
        let (mut sender, mut receiver) = pipe::pipe()?;
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i * 7 / 3) as u8).collect();
        let expected = bytes.clone();
        let writing = evenkeel::spawn(async move {
            sender.write_all(&bytes).await?;
            sender.close();
            Ok::<_, io::Error>(())
        });
        let (mut got, mut buffer) = (Vec::new(), vec![0; 20_000]);
        loop {
            let room = 1 + sim::random(20_000) as usize;
            match receiver.read(&mut buffer[..room]).await? {
                0 => break,
                n => got.extend_from_slice(&buffer[..n]),
            }
        }
        assert_eq!(got, expected, "I35");
        writing.await.map_err(io::Error::other)??;
        let (mut sender, receiver) = pipe::pipe()?;
        drop(receiver);
        assert_eq!(sender.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        Ok(())
    });
    world.run()
}

/// A proxy on a host of its own, whose large pieces go through a pipe.
fn through_a_proxy(world: &mut World, backend: Backend) -> Result<(), Failure> {
    world.set_backend(backend);
    world.swarm(FAULTS);
    let server = world.host("server", || async {
        let mut listener = Listener::bind("0.0.0.0:80")?;
        let (mut stream, _) = listener.accept().await?;
        let (mut all, mut buffer) = (Vec::new(), vec![0; 10_000]);
        loop {
            match stream.read(&mut buffer).await? {
                0 => break,
                n => all.extend_from_slice(&buffer[..n]),
            }
        }
        stream.write_all(&all).await?;
        stream.shutdown().await?;
        std::future::pending().await
    });
    let server = SocketAddr::new(world.ip(server), 80);
    let proxy = world.host("proxy", move || async move {
        let mut listener = Listener::bind("0.0.0.0:80")?;
        let (mut client, _) = listener.accept().await?;
        let mut server = Stream::connect(server).await?;
        forward_both(&mut client, &mut server).await?;
        std::future::pending().await
    });
    let proxy = SocketAddr::new(world.ip(proxy), 80);
    world.client("client", move || async move {
        time::sleep(Duration::from_millis(5)).await;
        let mut stream = Stream::connect(proxy).await?;
        let bytes: Vec<u8> = (0..400_000u32).map(|i| (i * 11 / 7) as u8).collect();
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        let mut got = vec![0; bytes.len()];
        stream.read_exact(&mut got).await?;
        assert!(got == bytes, "I35");
        assert_eq!(stream.read(&mut [0; 1]).await?, 0);
        Ok(())
    });
    world.run()
}

on_every_driver! {
    asking(0..20, &[super::Fault::Loss, super::Fault::Duplicate, super::Fault::Delay, super::Fault::WouldBlock, super::Fault::Interrupted]);
    a_connected_socket_hears_that_nobody_is_there(0..3, &[]);
    changing_owners(0..3, &[]);
    talking(0..20, &[super::Fault::WouldBlock]);
    through_a_pipe(0..20, &[super::Fault::ShortRead, super::Fault::ShortWrite, super::Fault::WouldBlock]);
    through_a_proxy(0..8, &[super::Fault::ShortRead]);
}
