//! Certificates. The registries here are on a loopback address, which is talked to by plain HTTP unless
//! something is said of certificates.

use std::path::PathBuf;

use crate::harness::*;

/// A trial with a registry that `authority` vouches for.
fn trial(authority: &Authority, clients: Option<&Authority>) -> Trial {
    let tls = Some(authority.server(clients));
    Trial::new(FakeOptions { tls, ..FakeOptions::default() })
}

/// Writes a file beside the auth file.
fn file(trial: &Trial, name: &str, text: &str) -> PathBuf {
    let path = trial.dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

/// Makes the trial's client trust an authority.
fn trusting(trial: Trial, authority: &Authority) -> Trial {
    let path = file(&trial, "ca.pem", &authority.pem());
    trial.with(|options| options.tls.authorities = vec![path])
}

#[test]
fn private_authority() {
    let authority = Authority::new();
    trusting(trial(&authority, None), &authority).arrives(SIZE);
    let service = Auth::Service(TokenService::default());
    let tls = Some(authority.server(None));
    let trial = Trial::new(FakeOptions { tls, auth: service, ..FakeOptions::default() });
    trusting(trial.password("ann", "s3cret"), &authority).arrives(SIZE);
}

#[test]
fn unknown_authority() {
    let trial = trusting(trial(&Authority::new(), None), &Authority::new());
    let said = trial.fails();
    assert!(said.contains("REGISTRY/ns/repo:v1") && said.to_lowercase().contains("certificate"), "{said}");
    assert_eq!(trial.fake.seen().len(), 0);
}

#[test]
fn unverified() {
    trial(&Authority::new(), None).with(|options| options.tls.verify = false).arrives(SIZE);
}

#[test]
fn client_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let identity = clients.client();
    let trial = trusting(trial(&authority, Some(&clients)), &authority);
    let certificate = file(&trial, "client.pem", &identity.certificate);
    let key = file(&trial, "client.key", &identity.key);
    trial.with(|options| options.tls.client = Some((certificate, key))).arrives(SIZE);

    let trial = trusting(self::trial(&authority, Some(&clients)), &authority);
    let both = file(&trial, "both.pem", &format!("{}{}", identity.certificate, identity.key));
    trial.with(|options| options.tls.client = Some((both.clone(), both))).arrives(SIZE);
}

#[test]
fn client_certificate_missing() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let trial = trusting(trial(&authority, Some(&clients)), &authority);
    let said = trial.fails();
    assert!(said.starts_with("cannot ") && said.contains("(REGISTRY/ns/repo:v1): "), "{said}");
    assert_eq!(trial.fake.seen().len(), 0);
}

#[test]
fn directories_of_certificates() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let identity = clients.client();
    let trial = trial(&authority, Some(&clients));
    let folder = format!("certs.d/{}", trial.fake.address());
    file(&trial, &format!("{folder}/ca.crt"), &authority.pem());
    file(&trial, &format!("{folder}/client.cert"), &identity.certificate);
    file(&trial, &format!("{folder}/client.key"), &identity.key);
    let directories = vec![trial.dir.path().join("none"), trial.dir.path().join("certs.d")];
    trial.with(|options| options.tls.directories = directories).arrives(SIZE);
}

#[test]
fn cut_with_certificates() {
    let authority = Authority::new();
    let faults = vec![Fault::once("PUT", "/uploads/", Effect::CloseAfter(SIZE / 2))];
    let tls = Some(authority.server(None));
    let trial = Trial::new(FakeOptions { faults, tls, ..FakeOptions::default() });
    trusting(trial, &authority).arrives(ONCE);
}
