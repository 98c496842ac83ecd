//! Combinators of the ecosystem: several futures of ours in one task, some of them dropped half way.

use std::pin::pin;
use std::time::Duration;

use evenkeel::net::TcpStream;
use evenkeel::time;
use futures_util::future::{Either, join, join_all, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, pin_mut};

use crate::{listener, on_every_backend, pair, pattern};

/// Each future in the set is polled with a waker of the set's own.
#[test]
fn futures_unordered_wakes_each_of_its_streams() {
    on_every_backend(|| async {
        let ends = join_all((0..20).map(|_| pair())).await;
        let (mut near, far): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
        let mut echoes: FuturesUnordered<_> = far
            .into_iter()
            .map(|mut stream| async move {
                while stream.read_with(|bytes, reply| reply.write(bytes)).await.unwrap().is_some() {
                    stream.flush().await.unwrap();
                }
            })
            .collect();
        let clients = async {
            for round in 0..3 {
                for stream in near.iter_mut().rev() {
                    let (sent, mut back) = (pattern(1000 + round), vec![0; 1000 + round]);
                    stream.write_all(&sent).await.unwrap();
                    stream.read_exact(&mut back).await.unwrap();
                    assert_eq!(sent, back);
                }
            }
            near.clear();
        };
        let all = async { while echoes.next().await.is_some() {} };
        join(clients, all).await;
    });
}

#[test]
fn a_read_that_loses_a_select_loses_no_byte() {
    on_every_backend(|| async {
        let (mut near, mut far) = pair().await;
        let sent = pattern(300_000);
        let expected = sent.clone();
        let writer = evenkeel::spawn(async move {
            for chunk in sent.chunks(997) {
                near.write_all(chunk).await.unwrap();
                evenkeel::task::yield_now().await;
            }
        });
        let mut got: Vec<u8> = Vec::new();
        let mut round = 0_u32;
        let mut buffer = [0; 701];
        loop {
            let other = async {
                for _ in 0..round % 3 {
                    evenkeel::task::yield_now().await;
                }
            };
            let read = match select(pin!(other), pin!(far.read(&mut buffer))).await {
                Either::Left(_) => None,
                Either::Right((n, _)) => Some(n.unwrap()),
            };
            round += 1;
            match read {
                Some(0) => break,
                Some(n) => got.extend(&buffer[..n]),
                None => {}
            }
        }
        writer.await.unwrap();
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    });
}

#[test]
fn an_accept_that_loses_a_select_loses_no_connection() {
    on_every_backend(|| async {
        let (mut listener, addr) = listener();
        let clients = evenkeel::spawn(async move {
            let connect = |_| TcpStream::connect(addr.clone());
            join_all((0..50).map(connect)).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap()
        });
        let mut accepted = Vec::new();
        while accepted.len() < 50 {
            futures_util::select_biased! {
                () = evenkeel::task::yield_now().fuse() => {}
                new = listener.accept().fuse() => accepted.push(new.unwrap()),
            }
            accepted.extend(listener.accept().now_or_never().map(Result::unwrap));
        }
        assert_eq!(clients.await.unwrap().len(), 50);
    });
}

#[test]
fn a_deadline_of_ours_ends_a_future_of_theirs() {
    on_every_backend(|| async {
        let late = time::timeout(Duration::from_millis(10), futures_util::future::pending::<()>());
        assert!(late.await.is_err());
        let sleep = time::sleep(Duration::from_secs(3600)).fuse();
        let soon = time::sleep(Duration::from_millis(5)).fuse();
        pin_mut!(sleep, soon);
        futures_util::select! { () = sleep => panic!("an hour early"), () = soon => {} }
    });
}

#[cfg(feature = "futures-core")]
#[test]
fn listeners_and_intervals_are_streams() {
    on_every_backend(|| async {
        let began = time::now();
        let ticks: Vec<_> = time::interval(Duration::from_millis(3)).take(3).collect().await;
        assert!(ticks.is_sorted() && ticks[0] >= began + Duration::from_millis(3));

        let (mut listener, addr) = listener();
        let client = join_all((0..3).map(|_| TcpStream::connect(addr.clone())));
        let incoming = listener.incoming().take(3).map(|new| new.unwrap().1).collect::<Vec<_>>();
        let (streams, peers) = join(client, incoming).await;
        let mut ends: Vec<_> = streams.iter().map(|s| s.as_ref().unwrap().local_addr().unwrap()).collect();
        ends.retain(|end| !peers.contains(end));
        assert_eq!((ends, peers.len()), (vec![], 3));
    });
}
