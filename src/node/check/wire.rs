//! As much of gRPC as it takes to ask a socket who listens: one call without streams, over HTTP/2. Headers are sent
//! uncompressed, and those of answers are not read. Must not know what is asked for.
//!
//! Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK), the gRPC protocol over HTTP/2, the encoding of protocol buffers.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

/// How long a whole conversation may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const ANSWER_MAX: usize = 1 << 20;
/// The same, as the server is told.
const WINDOW: u32 = 1 << 20;
/// Longest frame that a server may send to who has not allowed more, in bytes.
const FRAME_MAX: usize = 1 << 14;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const INITIAL_WINDOW_SIZE: u16 = 4;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection to a gRPC server.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    deadline: Instant,
}

impl Connection {
    /// Begins a conversation.
    ///
    /// # Errors
    /// Who listens does not answer in time, or not as HTTP/2.
    pub(super) fn begin(stream: UnixStream) -> io::Result<Self> {
        let mut connection = Self { stream, deadline: Instant::now() + PATIENCE };
        connection.stream.set_write_timeout(Some(PATIENCE))?;
        connection.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        // Room for an answer of more than 64 KiB, on every stream and in all.
        let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend_from_slice(&WINDOW.to_be_bytes());
        connection.send(SETTINGS, 0, 0, &settings)?;
        connection.send(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes())?;
        let (kind, _, _, _) = connection.frame()?;
        if kind != SETTINGS {
            return Err(not_http2());
        }
        connection.send(SETTINGS, ACK, 0, &[])?;
        Ok(connection)
    }

    /// Calls a method, named `/SERVICE/METHOD` in at most 126 bytes, and gives its answer; `None` if there is none,
    /// as when there is no such method.
    pub(super) fn call(mut self, method: &str, message: &[u8]) -> io::Result<Option<Vec<u8>>> {
        // POST, http, and then literals without indexing, of names in the static table but for the last.
        let mut headers = vec![0x83, 0x86];
        for (name, value) in
            [(&[0x04][..], method), (&[0x01], "localhost"), (&[0x0f, 0x10], "application/grpc")]
        {
            headers.extend_from_slice(name);
            text(&mut headers, value)?;
        }
        headers.push(0);
        text(&mut headers, "te")?;
        text(&mut headers, "trailers")?;
        self.send(HEADERS, END_HEADERS, 1, &headers)?;
        let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut body = vec![0];
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(message);
        self.send(DATA, END_STREAM, 1, &body)?;
        let answer = self.answer()?;
        // A flag that says whether it is compressed, and its length.
        let Some((&[flag, a, b, c, d], message)) = answer.split_first_chunk::<5>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if flag != 0 {
            return Ok(None);
        }
        Ok(message.get(..length).map(<[u8]>::to_vec))
    }

    fn answer(&mut self) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        loop {
            let (kind, flags, stream, payload) = self.frame()?;
            match (kind, stream) {
                // The server may have said all by then, and gone.
                (SETTINGS, _) if flags & ACK == 0 => drop(self.send(SETTINGS, ACK, 0, &[])),
                (GOAWAY, _) | (RST_STREAM, 1) => return Ok(answer),
                (DATA, 1) => {
                    // No gRPC server pads; one that does is not understood.
                    answer.extend_from_slice(&payload);
                    if answer.len() > ANSWER_MAX {
                        return Err(io::Error::other("an answer of more than 1 MiB"));
                    }
                }
                _ => {}
            }
            if stream == 1 && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return Ok(answer);
            }
        }
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?.to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame)
    }

    /// The next frame: type, flags, stream, payload.
    fn frame(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.fill(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        if length > FRAME_MAX {
            return Err(not_http2());
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        Ok((kind, flags, u32::from_be_bytes(stream) & 0x7fff_ffff, payload))
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => buffer = buffer.get_mut(count..).unwrap_or_default(),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }
}

fn not_http2() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what came is not HTTP/2")
}

/// A header's text, which is no longer than one byte can say.
fn text(headers: &mut Vec<u8>, text: &str) -> io::Result<()> {
    match u8::try_from(text.len()) {
        Ok(length @ ..127) => {
            headers.push(length);
            headers.extend_from_slice(text.as_bytes());
            Ok(())
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The fields of a message that are messages, texts or bytes: number and value.
pub(super) fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    let mut fields = Vec::new();
    while let Some((tag, rest)) = varint(message) {
        let after = match tag & 7 {
            0 => varint(rest).map(|(_, rest)| rest),
            1 => rest.get(8..),
            5 => rest.get(4..),
            2 => varint(rest).and_then(|(length, rest)| {
                let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                fields.push((tag >> 3, value));
                Some(rest)
            }),
            _ => None,
        };
        match after {
            Some(after) => message = after,
            None => break,
        }
    }
    fields
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index * 7).ok()?).unwrap_or_default();
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn fields_are_read_and_nonsense_ends_them() {
        let message = b"\x0a\x03abc\x10\x96\x01\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0\x12\0";
        assert_eq!(fields(message), [(1, &b"abc"[..]), (2, b"")]);
        for bad in
            [&b"\x0a\x05abc"[..], b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0b", b"\x80"]
        {
            assert_eq!(fields(bad), [], "{bad:?}");
        }
    }

    fn answered(bytes: &'static [u8]) -> io::Result<Connection> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            theirs.write_all(bytes).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let mut all = Vec::new();
            let _ = theirs.read_to_end(&mut all);
        });
        let result = Connection::begin(ours);
        // A connection that fails is closed, which ends the server; one that does not is closed by who gets it.
        if result.is_err() {
            server.join().unwrap();
        }
        result
    }

    #[test]
    fn only_http2_is_taken_for_it() {
        assert!(answered(b"\0\0\0\x04\0\0\0\0\0").is_ok());
        for bad in [
            &b""[..],
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\0\0\0\x07\0\0\0\0\0",
            b"\xff\xff\xff\x04\0\0\0\0\0",
        ] {
            assert!(answered(bad).is_err(), "{bad:?}");
        }
    }
}
