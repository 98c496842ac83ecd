//! Code that is written against tokio's I/O traits, over our streams and their halves.

use std::future::poll_fn;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;

use evenkeel::net::TcpStream;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::codec::{Framed, FramedRead, FramedWrite, LinesCodec};

use crate::{on_every_backend, pair, pattern};

#[test]
fn a_codec_of_tokio_util_runs_over_streams_and_halves() {
    on_every_backend(|| async {
        let (near, far) = pair().await;
        let served = evenkeel::spawn(async move {
            let (reader, writer) = far.into_split();
            let mut lines = FramedRead::new(reader, LinesCodec::new());
            let mut answers = FramedWrite::new(writer, LinesCodec::new());
            while let Some(line) = lines.next().await {
                answers.send(line.unwrap().to_uppercase()).await.unwrap();
            }
            SinkExt::<&str>::close(&mut answers).await.unwrap();
        });
        let mut lines = Framed::new(near, LinesCodec::new());
        for len in [0, 1, 4000, 300_000] {
            lines.send("a".repeat(len)).await.unwrap();
            assert_eq!(lines.next().await.unwrap().unwrap(), "A".repeat(len));
        }
        SinkExt::<&str>::close(&mut lines).await.unwrap();
        assert!(lines.next().await.is_none());
        served.await.unwrap();
    });
}

async fn fill(stream: &mut TcpStream, buffer: &mut ReadBuf<'_>) {
    while buffer.remaining() > 0 {
        let before = buffer.filled().len();
        poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, buffer)).await.unwrap();
        assert!(buffer.filled().len() > before, "the stream ended");
    }
    // A full buffer is no end of the stream, and no error.
    poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, buffer)).await.unwrap();
}

#[test]
fn buffers_are_filled_whether_they_were_initialised_or_not() {
    on_every_backend(|| async {
        let (mut near, mut far) = pair().await;
        let sent = pattern(400_000);
        let expected = sent.clone();
        let writing = evenkeel::spawn(async move {
            let slices: Vec<_> = sent.chunks(50_000).map(IoSlice::new).collect();
            let first = poll_fn(|cx| Pin::new(&mut near).poll_write_vectored(cx, &slices)).await.unwrap();
            near.write_all(&sent[first..]).await.unwrap();
            poll_fn(|cx| Pin::new(&mut near).poll_flush(cx)).await.unwrap();
            poll_fn(|cx| Pin::new(&mut near).poll_shutdown(cx)).await.unwrap();
            near
        });
        let mut memory = vec![MaybeUninit::uninit(); 100_000];
        let mut buffer = ReadBuf::uninit(&mut memory);
        fill(&mut far, &mut buffer).await;
        assert!(buffer.filled() == &expected[..100_000]);

        let mut memory = vec![0; 100_000];
        fill(&mut far, &mut ReadBuf::new(&mut memory)).await;
        assert!(memory == expected[100_000..200_000]);

        // Partly filled and partly initialised.
        let mut memory = vec![MaybeUninit::uninit(); 200_100];
        let mut buffer = ReadBuf::uninit(&mut memory);
        buffer.put_slice(&[7; 100]);
        buffer.initialize_unfilled_to(1000);
        fill(&mut far, &mut buffer).await;
        assert!(buffer.filled()[..100] == [7; 100] && buffer.filled()[100..] == expected[200_000..]);

        for mut memory in [vec![MaybeUninit::uninit(); 10], vec![MaybeUninit::new(0); 10]] {
            let mut buffer = ReadBuf::uninit(&mut memory);
            poll_fn(|cx| Pin::new(&mut far).poll_read(cx, &mut buffer)).await.unwrap();
            assert!(buffer.filled().is_empty(), "the end");
        }
        writing.await.unwrap();
    });
}
