//! UDP in batches: the kernel's segmentation and receive offload.

use std::io::{ErrorKind, IoSliceMut};
use std::net::Ipv4Addr;

use evenkeel::Backend;
use evenkeel::net::{Ecn, RecvMeta, Transmit, UdpBatches, UdpSocket};

use crate::support::{assert_same, event_loop, pattern};

// The model has no segmentation offload.
on_every_backend! {
    batches_are_cut_and_joined_by_the_kernel,
    batches_reach_plain_sockets_as_datagrams,
    batches_that_cannot_be_are_refused,
}

fn batched(at: &str) -> UdpBatches {
    UdpSocket::bind(at).unwrap().into_batches().unwrap()
}

fn batches_are_cut_and_joined_by_the_kernel(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let (from, to) = (batched("127.0.0.1:0"), batched("127.0.0.1:0"));
            assert!(from.max_gso_segments() > 1 && to.gro_segments() > 1, "this kernel has both");
            assert!(!to.may_fragment());
            let (size, count) = (1000, from.max_gso_segments().min(40));
            // The last one is shorter.
            let contents = pattern(size * count - 300);
            let to_addr = to.local_addr().unwrap();
            let mut memory = [vec![0; size * 64], vec![0; size * 64]];
            let (mut joined, mut got) = (false, Vec::new());
            for _ in 0..3 {
                got.clear();
                let mut transmit = Transmit::new(to_addr, &contents).segments(size);
                transmit.ecn = Some(Ecn::Ect0);
                transmit.src_ip = Some(Ipv4Addr::LOCALHOST.into());
                from.send_batch(&transmit).await.unwrap();
                while got.len() < contents.len() {
                    let mut meta = [RecvMeta::default(); 2];
                    let [a, b] = &mut memory;
                    let mut bufs = [IoSliceMut::new(a), IoSliceMut::new(b)];
                    let n = to.recv_batch(&mut bufs, &mut meta).await.unwrap();
                    for (bytes, meta) in memory.iter().zip(&meta[..n]) {
                        joined |= meta.len > meta.stride;
                        assert_eq!((meta.addr, meta.stride), (from.local_addr().unwrap(), size));
                        assert_eq!(meta.ecn, Some(Ecn::Ect0));
                        assert_eq!(meta.dst_ip, Some(Ipv4Addr::LOCALHOST.into()));
                        got.extend_from_slice(&bytes[..meta.len]);
                    }
                }
                assert_same(&got, &contents);
            }
            assert!(joined, "several came in one buffer");
        })
        .unwrap();
}

fn batches_reach_plain_sockets_as_datagrams(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let (from, to) = (batched("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0").unwrap());
            let contents = pattern(2500);
            let transmit = Transmit::new(to.local_addr().unwrap(), &contents);
            from.send_batch(&transmit.segments(1000)).await.unwrap();
            let mut bytes = [0; 4000];
            for expected in contents.chunks(1000) {
                let n = to.recv(&mut bytes).await.unwrap();
                assert_same(&bytes[..n], expected);
            }
            // And several plain ones come in one call.
            let (one, many) = (UdpSocket::bind("127.0.0.1:0").unwrap(), batched("127.0.0.1:0"));
            for n in 1..=4u8 {
                one.send_to(&vec![n; usize::from(n) * 10], many.local_addr().unwrap()).await.unwrap();
            }
            let mut memory = vec![[0; 4000]; 8];
            let (mut came, mut calls) = (Vec::new(), 0);
            while came.len() < 4 {
                let mut bufs: Vec<_> = memory.iter_mut().map(|m| IoSliceMut::new(m)).collect();
                let mut meta = [RecvMeta::default(); 8];
                let n = many.recv_batch(&mut bufs, &mut meta).await.unwrap();
                came.extend(meta[..n].iter().map(|meta| meta.len));
                calls += 1;
            }
            assert_eq!(came, [10, 20, 30, 40]);
            assert!(calls < 4, "several at once");
        })
        .unwrap();
}

fn batches_that_cannot_be_are_refused(backend: Backend) {
    let mut events = event_loop(backend);
    events
        .block_on(async {
            let (from, to) = (batched("127.0.0.1:0"), batched("127.0.0.1:0"));
            let transmit = Transmit::new(to.local_addr().unwrap(), &[0; 1000]);
            for size in [0, 1] {
                let error = from.send_batch(&transmit.segments(size)).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
            }
            assert_eq!(to.recv_batch(&mut [], &mut []).await.unwrap_err().kind(), ErrorKind::InvalidInput);
            from.send_batch(&transmit.segments(5000)).await.unwrap();
            let mut meta = [RecvMeta::default()];
            let n = to.recv_batch(&mut [IoSliceMut::new(&mut [0; 2000])], &mut meta).await.unwrap();
            assert_eq!((n, meta[0].len, meta[0].stride), (1, 1000, 1000));
            // Longer than any path takes.
            let long = vec![0; 70_000];
            let error = from.send_batch(&Transmit::new(to.local_addr().unwrap(), &long)).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        })
        .unwrap();
}
