//! Asks a server whether it is ready: one GET request, of whose answer only the status counts. Plain HTTP, as health
//! checks on one's own machine are.

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    str::FromStr,
    time::Duration,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest status line in bytes.
const STATUS_MAX: u64 = 1024;

/// An `http://` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyUrl {
    /// Host and port, as they were written.
    authority: String,
    /// The same with a port.
    address: String,
    /// Path and query.
    path: String,
}

impl FromStr for ReadyUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("http://") else {
            return Err("expected http://HOST[:PORT]/PATH; https is not spoken".to_owned());
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        if authority.is_empty() || authority.contains('@') || text.contains(|letter: char| letter <= ' ') {
            return Err("expected http://HOST[:PORT]/PATH, without user and blanks".to_owned());
        }
        // An IPv6 address has colons of its own, in brackets.
        let port = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let address = match port {
            Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
            Some((_, port)) => return Err(format!("`{port}` is no port")),
            None => format!("{authority}:80"),
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { authority: authority.to_owned(), address, path: format!("{slash}{path}") })
    }
}

impl fmt::Display for ReadyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl ReadyUrl {
    /// Whether the server answers with a status of 200 to 299 now.
    pub fn answers(&self) -> bool {
        let Ok(addresses) = self.address.to_socket_addrs() else { return false };
        addresses.into_iter().any(|address| {
            let stream = TcpStream::connect_timeout(&address, PATIENCE);
            stream.is_ok_and(|stream| self.ask(stream).is_some_and(|status| (200..300).contains(&status)))
        })
    }

    fn ask(&self, mut stream: TcpStream) -> Option<u16> {
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: starcar\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.path, self.authority
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream.take(STATUS_MAX)).read_line(&mut line).ok()?;
        let mut words = line.split(' ');
        words.next().filter(|version| version.starts_with("HTTP/1."))?;
        words.next()?.trim_end().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn addresses() {
        let parse = |text: &str| text.parse::<ReadyUrl>();
        let url = parse("http://localhost:8000/health?full=1#top").unwrap();
        assert_eq!((url.address.as_str(), url.path.as_str()), ("localhost:8000", "/health?full=1"));
        let url = parse("http://[::1]").unwrap();
        assert_eq!((url.address.as_str(), url.path.as_str()), ("[::1]:80", "/"));
        assert_eq!(parse("http://host?x").unwrap().to_string(), "http://host/?x");
        for bad in ["https://host", "localhost:80", "http://", "http://host:x/", "http://a@b/", "http://a/ b"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_success_counts() {
        for (answer, ready) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.0 204\r\n\r\n", true),
            ("HTTP/1.1 503 Loading\r\n\r\n", false),
            ("SSH-2.0-x\r\n", false),
            ("", false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url: ReadyUrl = format!("http://{}/health", listener.local_addr().unwrap()).parse().unwrap();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(request[..length].to_vec()).unwrap()
            });
            assert_eq!(url.answers(), ready, "{answer}");
            assert!(server.join().unwrap().starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"));
            assert!(!url.answers(), "nobody listens any more");
        }
    }
}
