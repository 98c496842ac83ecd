//! Sending files without a copy through the program.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;

use rustix::io::{Errno, ReadWriteFlags};

use super::Stream;
use crate::fs::File;

/// What one call sends at most. Between calls others have their turn; and what is not in memory is read in pieces of this
/// size, which file operations are too.
const PIECE: u64 = 256 << 10;

/// Where the next bytes of a file are.
#[derive(Debug, PartialEq, Eq)]
enum Lies {
    /// In memory, as far as is known.
    Warm,
    /// On a disk or a network.
    Cold,
    /// Nowhere: the file ends.
    End,
}

impl Stream {
    /// Sends `len` bytes of a file from offset `at`, or as many as it has, and returns how many those were. All that was
    /// written before leaves before. The kernel sends what it has in memory by itself (`sendfile(2)`); what it has to fetch
    /// from a disk first is read like any other file, without keeping the loop, where its file system can tell (`RWF_NOWAIT`).
    ///
    /// A return of less than `len` means that the file is shorter, or became so meanwhile. A peer that was promised more
    /// must learn of that: [`abort`](Self::abort) the stream.
    ///
    /// Bytes that the kernel has taken and not sent yet are the file's own pages: what changes in the file until then may
    /// be what the peer gets.
    ///
    /// Not cancel safe: a part may have been sent when the future is dropped.
    ///
    /// ```
    /// # use evenkeel::{EventLoop, fs::File, net::{TcpListener, TcpStream}};
    /// # let path = std::env::temp_dir().join(format!("evenkeel-send-{}", std::process::id()));
    /// # std::fs::write(&path, "Hello, world")?;
    /// # let mut events = EventLoop::new()?;
    /// # let got = events.block_on(async {
    /// # let mut listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (mut stream, _) = listener.accept().await?;
    /// let file = File::open(&path).await?;
    /// let len = file.metadata().await?.len();
    /// stream.write_all(b"12\n").await?;
    /// if stream.send_file(&file, 0, len).await? < len {
    ///     stream.abort();
    /// }
    /// # let mut got = [0; 15];
    /// # client.read_exact(&mut got).await?;
    /// # Ok::<_, std::io::Error>(got)
    /// # })??;
    /// # std::fs::remove_file(path)?;
    /// # assert_eq!(&got, b"12\nHello, world");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The kernel's, of the socket or of the file; `BrokenPipe` after [`shutdown`](Self::shutdown); `InvalidInput` for a range
    /// that reaches above `i64::MAX`. A part may have been sent.
    pub async fn send_file(&mut self, file: &File, at: u64, len: u64) -> io::Result<u64> {
        if at.checked_add(len).is_none_or(|end| i64::try_from(end).is_err()) {
            let what = "the range of the file reaches above i64::MAX";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let (mut sent, mut refused) = (0, false);
        while sent < len {
            let (from, most) = (at + sent, (len - sent).min(PIECE));
            let lies = if refused { Lies::Cold } else { look(file, from, most)? };
            let n = match lies {
                Lies::End => 0,
                Lies::Cold => self.send_read(file, from, most as usize).await?,
                Lies::Warm => match self.send_warm(file, from, most as usize).await {
                    // Not every file system has it.
                    Err(e) if is_refusal(&e) && sent == 0 => {
                        refused = true;
                        continue;
                    }
                    other => other?,
                },
            };
            if n == 0 {
                break;
            }
            sent += n as u64;
        }
        Ok(sent)
    }

    async fn send_warm(&mut self, file: &File, at: u64, most: usize) -> io::Result<usize> {
        poll_fn(|cx| {
            self.poll_send_by(cx, |sys, fd| {
                let mut at = at;
                sys.send_file(fd, file.as_fd(), &mut at, most)
            })
        })
        .await
    }

    async fn send_read(&mut self, file: &File, at: u64, most: usize) -> io::Result<usize> {
        let mut piece = vec![0; most];
        let n = file.read_at(&mut piece, at).await?;
        self.write_all(&piece[..n]).await?;
        Ok(n)
    }
}

/// Looks whether reading a piece would wait for a disk: whether its first and its last byte are in memory.
fn look(file: &File, at: u64, most: u64) -> io::Result<Lies> {
    for place in [at, at + most - 1] {
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(file, &mut slices, place, ReadWriteFlags::NOWAIT) {
            Ok(0) if place == at => return Ok(Lies::End),
            // The file ends within the piece.
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(Lies::Cold),
            // It cannot tell. A file system in memory is one of those, and so is an old one.
            Err(Errno::OPNOTSUPP | Errno::INTR | Errno::NOSYS | Errno::INVAL) => return Ok(Lies::Warm),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Lies::Warm)
}

fn is_refusal(e: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP];
    e.raw_os_error().is_some_and(|code| refusals.iter().any(|errno| errno.raw_os_error() == code))
}
