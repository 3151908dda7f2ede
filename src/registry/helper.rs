//! Runs docker's credential helpers: programs that are handed a registry's name and print a user and a secret. Must not
//! know what the secret is for.
//!
//! Source: docker/docker-credential-helpers, README, section "Development".

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use serde::Deserialize;

use super::{credentials::Credential, error::RegistryError};

/// When it is said that a helper is waited for: some ask a person.
const SAID_AFTER: Duration = Duration::from_secs(5);
/// When a helper is given up after that.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(115);
/// Longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 1 << 20;
/// The user's name that means that the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers say of a registry that they do not know: their protocol has no exit code for that.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What a helper printed, and whether it succeeded.
struct Output {
    succeeded: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Runs `docker-credential-HELPER get`, which the auth file `path` names; `None` if it has nothing for `server`.
pub(super) fn ask(path: &Path, helper: &str, server: &str) -> Result<Option<Credential>, RegistryError> {
    let program = format!("docker-credential-{helper}");
    run(&program, server, path).and_then(|output| read(&output)).map_err(|message| {
        RegistryError::CredentialHelper {
            helper: helper.to_owned(),
            path: path.to_owned(),
            registry: server.to_owned(),
            message,
        }
    })
}

fn run(program: &str, server: &str, path: &Path) -> Result<Output, String> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            format!(
                "it cannot be run ({error}); install it, take it out of {}, or name another file with --authfile",
                path.display()
            )
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that serves one registry need not read which one is asked for.
        stdin.write_all(server.as_bytes()).ok();
    }
    let (sender, answer) = mpsc::channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        let errors = thread::spawn(move || bytes(stderr));
        let stdout = bytes(stdout);
        sender.send((stdout, errors.join().unwrap_or_default())).ok();
    });
    let answered = answer.recv_timeout(SAID_AFTER).or_else(|_| {
        tracing::warn!("waiting for {program}, which {} names", path.display());
        answer.recv_timeout(GIVEN_UP_AFTER)
    });
    match answered {
        Ok((stdout, stderr)) => {
            let status = child.wait().map_err(|error| error.to_string())?;
            Ok(Output { succeeded: status.success(), stdout, stderr })
        }
        Err(RecvTimeoutError::Timeout) => {
            end(&mut child);
            Err(format!("it did not answer for {} s", (SAID_AFTER + GIVEN_UP_AFTER).as_secs()))
        }
        Err(RecvTimeoutError::Disconnected) => {
            end(&mut child);
            Err("its answer could not be read".to_owned())
        }
    }
}

fn end(child: &mut Child) {
    child.kill().ok();
    child.wait().ok();
}

fn bytes(source: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(source) = source {
        source.take(ANSWER_MAX).read_to_end(&mut bytes).ok();
    }
    bytes
}

fn read(output: &Output) -> Result<Option<Credential>, String> {
    if output.succeeded {
        // The parser's message could quote a secret.
        let answer: Answer = serde_json::from_slice(&output.stdout)
            .map_err(|_| "what it printed is no JSON with Username and Secret".to_owned())?;
        return Ok(Some(if answer.username == TOKEN_USER {
            Credential::IdentityToken(None, answer.secret)
        } else {
            Credential::Password(answer.username, answer.secret)
        }));
    }
    let (said, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains(NOT_FOUND) || words.contains(NOT_FOUND) {
        return Ok(None);
    }
    // stdout is where secrets go, so it is not quoted, whatever the exit code says.
    let line: String = words.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    Err(if line.is_empty() { "it exited with an error and said nothing".to_owned() } else { line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(succeeded: bool, stdout: &str, stderr: &str) -> Result<Option<Credential>, String> {
        read(&Output { succeeded, stdout: stdout.into(), stderr: stderr.into() })
    }

    #[test]
    fn answers() {
        let answer = |user: &str| format!(r#"{{"ServerURL":"h","Username":"{user}","Secret":"s"}}"#);
        assert_eq!(of(true, &answer("u"), ""), Ok(Some(Credential::Password("u".into(), "s".into()))));
        assert_eq!(of(true, &answer("<token>"), ""), Ok(Some(Credential::IdentityToken(None, "s".into()))));
        assert_eq!(of(false, "credentials not found in native keychain\n", ""), Ok(None));
        for (succeeded, stdout, stderr, expected) in [
            (true, "", "", "no JSON"),
            (true, "hunter2", "", "no JSON"),
            (true, r#"{"Username":"u"}"#, "", "no JSON"),
            (false, "hunter2", "", "said nothing"),
            (false, "", "locked\u{1b}[0m\nmore", "locked[0m"),
        ] {
            let error = of(succeeded, stdout, stderr).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_helper_need_not_read_what_it_is_asked() {
        for _ in 0..20 {
            let output = run("true", &"x".repeat(1 << 20), Path::new("auth.json")).unwrap();
            assert!(output.succeeded && output.stdout.is_empty());
        }
        let error = run("docker-credential-nobody-has-this", "h", Path::new("auth.json")).err().unwrap();
        assert!(error.contains("auth.json") && error.contains("--authfile"), "{error}");
    }
}
