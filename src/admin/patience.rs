//! A connection whose reader must go on taking bytes.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Fails a write of which nothing is taken for `limit`: what waits to be read is megabytes.
#[derive(Debug)]
pub(super) struct Patience<S> {
    stream: S,
    limit: Duration,
    /// Runs while nothing is taken.
    over: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Patience<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            over: None,
        }
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(taken) = write(Pin::new(&mut self.stream), cx) {
            self.over = None;
            return Poll::Ready(taken);
        }
        let limit = self.limit;
        let over = self
            .over
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(over.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    fn run(future: impl std::future::Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(future);
    }

    #[test]
    fn who_takes_nothing_is_left() {
        run(async {
            let (ours, _theirs) = tokio::io::duplex(16);
            let began = Instant::now();
            let written = Patience::new(ours, LIMIT).write_all(&[0; 64]).await;
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert!(began.elapsed() >= LIMIT);
        });
    }

    #[test]
    fn who_is_slow_gets_all() {
        run(async {
            let (ours, mut theirs) = tokio::io::duplex(16);
            let mut ours = Patience::new(ours, LIMIT);
            let began = Instant::now();
            let read = async {
                for _ in 0..10 {
                    tokio::time::sleep(LIMIT / 5).await;
                    theirs.read_exact(&mut [0; 16]).await.unwrap();
                }
            };
            let (written, ()) = tokio::join!(ours.write_all(&[0; 160]), read);
            written.unwrap();
            assert!(began.elapsed() > LIMIT);
        });
    }
}
