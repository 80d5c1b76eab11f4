//! Whether the host at the other end of a connection is still there.
//!
//! One that loses its power or its network says nothing, and TCP by itself does not ask: what was sent is repeated for a
//! quarter of an hour, and who only waits for bytes waits for ever. Until then a client has no answer, or vLLM generates
//! for nobody.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Probes within the limit: one of them may be lost.
const PROBES: u32 = 3;

/// What the kernel takes.
const LONGEST: Duration = Duration::from_hours(9);

/// Breaks the connection (`ETIMEDOUT`) once the other host has acknowledged nothing for `limit`: neither bytes (and none
/// taken while more wait to be sent) nor, where there are none, probes. The sockets that a listening one accepts have this
/// from it.
///
/// # Errors
/// The system's.
pub(crate) fn watch(socket: &SockRef<'_>, limit: Duration) -> io::Result<()> {
    let limit = limit.min(LONGEST);
    // In whole seconds, and none is an error.
    let step = (limit / PROBES).max(Duration::from_secs(1));
    let probes = TcpKeepalive::new()
        .with_time(step)
        .with_interval(step)
        .with_retries(PROBES);
    socket.set_tcp_keepalive(&probes)?;
    // Elsewhere probes alone have to do: they do not ask while bytes are on their way.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(limit))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    #[test]
    fn an_accepted_socket_has_it_from_the_listening_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        watch(&SockRef::from(&listener), Duration::from_mins(2)).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(
            accepted.tcp_keepalive_time().unwrap(),
            Duration::from_secs(40)
        );
        assert_eq!(
            accepted.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(40)
        );
        #[cfg(target_os = "linux")]
        assert_eq!(
            accepted.tcp_user_timeout().unwrap(),
            Some(Duration::from_mins(2))
        );
    }

    #[test]
    fn every_limit_is_one_that_the_kernel_takes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for limit in [
            Duration::from_millis(1),
            Duration::from_secs(1),
            Duration::MAX,
        ] {
            watch(&SockRef::from(&listener), limit).unwrap();
        }
    }

    /// The rest needs hosts that go away: tests/hosts.
    #[cfg(target_os = "linux")]
    #[test]
    fn who_takes_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        watch(&SockRef::from(&stream), Duration::from_secs(1)).unwrap();
        let (_deaf, _) = listener.accept().unwrap();
        let began = Instant::now();
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 65536]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
