//! Code that is written against `futures_io`, over our streams and their halves.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use async_tungstenite::tungstenite::Message;
use async_tungstenite::{accept_async, client_async};
use evenkeel::net::TcpStream;
use futures_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use futures_rustls::{TlsAcceptor, TlsConnector};
use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};

use crate::{on_every_backend, pair, pattern};

/// Reads and writes at once, more than the kernel holds, and hears the end of each direction.
async fn exchange(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    sent: &[u8],
) -> Vec<u8> {
    let mut back = Vec::new();
    let writing = async {
        writer.write_all(sent).await.unwrap();
        writer.flush().await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(writer.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        writer.close().await.unwrap();
    };
    let (_, read) = join(writing, reader.read_to_end(&mut back)).await;
    assert_eq!(read.unwrap(), back.len());
    assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
    back
}

async fn echo(stream: TcpStream) {
    let (reader, mut writer) = AsyncReadExt::split(stream);
    copy(reader, &mut writer).await.unwrap();
    AsyncWriteExt::close(&mut writer).await.unwrap();
}

#[test]
fn streams_and_halves_carry_every_byte_and_the_end() {
    on_every_backend(|| async {
        let sent = pattern(5_000_000);
        for kind in 0..3 {
            let (mut near, far) = pair().await;
            let echo = evenkeel::spawn(echo(far));
            let back = match kind {
                0 => {
                    let (reader, writer) = AsyncReadExt::split(near);
                    exchange(reader, writer, &sent).await
                }
                1 => {
                    // Plain `near.split()` is the trait's, which takes the stream by value.
                    let (reader, writer) = TcpStream::split(&mut near);
                    exchange(reader, writer, &sent).await
                }
                _ => {
                    let (reader, writer) = near.into_split();
                    exchange(reader, writer, &sent).await
                }
            };
            assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
            echo.await.unwrap();
        }
    });
}

#[test]
fn vectored_writes_keep_the_order_and_take_odd_slices() {
    on_every_backend(|| async {
        let (mut near, mut far) = pair().await;
        let reading = evenkeel::spawn(async move {
            let mut all = Vec::new();
            AsyncReadExt::read_to_end(&mut far, &mut all).await.unwrap();
            all
        });
        assert_eq!(near.write_vectored(&[]).await.unwrap(), 0);
        assert_eq!(near.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"")]).await.unwrap(), 0);
        // More empty slices, and more full ones, than the kernel looks at.
        let mut slices = vec![IoSlice::new(b""); 3000];
        slices.push(IoSlice::new(b"x"));
        assert_eq!(near.write_vectored(&slices).await.unwrap(), 1);
        let sent = pattern(3000);
        let slices: Vec<_> = sent.chunks(1).map(IoSlice::new).collect();
        let first = near.write_vectored(&slices).await.unwrap();
        assert!((1..=3000).contains(&first), "{first}");
        near.write_all(&sent[first..]).await.unwrap();
        // Large slices, of which the kernel takes a part.
        let big = pattern(2_000_000);
        let mut done = 0;
        while done < big.len() {
            let (a, b) = big[done..].split_at((big.len() - done) / 2);
            let slices = [IoSlice::new(a), IoSlice::new(b""), IoSlice::new(b)];
            done += AsyncWriteExt::write_vectored(&mut near, &slices).await.unwrap();
        }
        drop(near);
        let all = reading.await.unwrap();
        assert!(all == [b"x", &sent[..], &big[..]].concat(), "{} bytes", all.len());
    });
}

#[test]
fn a_websocket_of_tungstenite_runs_over_a_stream() {
    on_every_backend(|| async {
        let (near, far) = pair().await;
        let served = evenkeel::spawn(async move {
            let mut socket = accept_async(far).await.unwrap();
            while let Some(message) = socket.next().await {
                let message = message.unwrap();
                if message.is_close() {
                    break;
                }
                socket.send(message).await.unwrap();
            }
            while socket.next().await.is_some() {}
        });
        let (mut socket, response) = client_async("ws://localhost/", near).await.unwrap();
        assert_eq!(response.status(), 101);
        for len in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
            let sent = Message::binary(pattern(len));
            socket.send(sent.clone()).await.unwrap();
            assert!(socket.next().await.unwrap().unwrap() == sent, "{len} bytes");
        }
        socket.close(None).await.unwrap();
        while socket.next().await.is_some() {}
        served.await.unwrap();
    });
}

#[test]
fn tls_of_rustls_runs_over_a_stream() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let server = ServerConfig::builder().with_no_client_auth();
    let server = Arc::new(server.with_single_cert(vec![own.cert.der().clone()], key).unwrap());
    let client = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    on_every_backend(|| async {
        let (near, far) = pair().await;
        let acceptor = TlsAcceptor::from(server.clone());
        let served = evenkeel::spawn(async move {
            let stream = acceptor.accept(far).await.unwrap();
            let (reader, mut writer) = stream.split();
            copy(reader, &mut writer).await.unwrap();
            writer.close().await.unwrap();
        });
        let connector = TlsConnector::from(client.clone());
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), near).await.unwrap();
        let sent = pattern(1_000_000);
        let (mut reader, mut writer) = stream.split();
        let mut back = Vec::new();
        let writing = async {
            writer.write_all(&sent).await.unwrap();
            writer.close().await.unwrap();
        };
        join(writing, async { reader.read_to_end(&mut back).await.unwrap() }).await;
        assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
        served.await.unwrap();
    });
}
