//! Passwords, tokens, and mounts from other repositories, which need tokens for both.

use std::{sync::Arc, time::Duration};

use starcar::blob::{BlobContent, MemoryBlob};

use crate::harness::*;

fn service(change: impl FnOnce(&mut TokenService)) -> Auth {
    let mut service = TokenService::default();
    change(&mut service);
    Auth::Service(service)
}

/// A trial with this account at a token service.
fn ann(change: impl FnOnce(&mut TokenService)) -> Trial {
    Trial::auth(service(change)).password("ann", "s3cret")
}

#[test]
fn wrong_password() {
    let basic_auth = || ("ann".to_owned(), "s3cret".to_owned());
    let ((user, password), (u2, p2)) = (basic_auth(), basic_auth());
    for auth in [
        Auth::Basic { user, password },
        Auth::BasicBehindOpenPing { user: u2, password: p2 },
        service(|_| {}),
        service(|service| service.scopes = Scopes::Said),
    ] {
        let trial = Trial::auth(auth).password("ann", "hunter2");
        let said = trial.fails();
        assert!(said.contains("REGISTRY refused the credentials from DIR/auth.json"), "{said}");
        assert!(said.contains("podman login REGISTRY") && !said.contains("hunter2"), "{said}");
        // Accounts are locked after a few failures.
        let logins = trial.fake.authorizations().len();
        assert_eq!(logins, 1, "{}", trial.log());
        assert!(trial.fake.seen().len() <= 4, "{}", trial.log());
        // Nor are they shown by each of several requests at once.
        trial.fake.forget();
        trial.push_many(8).unwrap_err();
        assert_eq!(trial.fake.authorizations().len(), 1, "{}", trial.log());
    }
    for status in [400, 403] {
        let refusal = Effect::At(When::BeforeBody, Act::Reply(Reply::status(status)));
        let faults = vec![Fault::always("GET", "/token", refusal)];
        let trial = Trial::new(FakeOptions { auth: service(|_| {}), faults, ..FakeOptions::default() });
        let trial = trial.password("ann", "hunter2");
        trial.push_many(8).unwrap_err();
        // Once to pull and once to push: an account may be allowed one of them.
        assert!(trial.fake.token_requests() <= 2, "{}", trial.log());
    }
}

#[test]
fn token_service_gone_in_a_blob() {
    // What the token service answers is no answer to the upload.
    let auth = service(|service| service.lifetime = Duration::from_secs(1));
    let faults = vec![
        Fault::once("PUT", "/uploads/", Effect::PauseAfter(SIZE / 4, Duration::from_millis(1200))),
        Fault::once("PUT", "/uploads/", Effect::CloseAfter(SIZE / 2)),
        Fault {
            skip: 2,
            ..Fault::once("GET", "/token", Effect::At(When::BeforeBody, Act::Reply(Reply::status(404))))
        },
    ];
    let trial = Trial::new(FakeOptions { auth, faults, ..FakeOptions::default() }).password("ann", "s3cret");
    let memory = trial.dir.path().join("memory");
    let trial = trial.with(|options| options.memory = Some(memory));
    let said = trial.fails();
    assert!(said.contains("no token service"), "{said}");
    trial.arrives(ONCE);
}

#[test]
fn password_that_ends_in_a_blob() {
    let auth = Auth::Basic { user: "ann".into(), password: "s3cret".into() };
    let refusal = Reply::status(401).with("www-authenticate", "Basic realm=\"fake\"");
    let faults = vec![
        Fault::once("PUT", "/uploads/", Effect::CloseAfter(SIZE / 2)),
        Fault {
            skip: 1,
            ..Fault::once("PUT", "/uploads/", Effect::At(When::BeforeBody, Act::Reply(refusal)))
        },
    ];
    let trial = Trial::new(FakeOptions { auth, faults, ..FakeOptions::default() }).password("ann", "s3cret");
    let memory = trial.dir.path().join("memory");
    let trial = trial.with(|options| options.memory = Some(memory));
    assert!(trial.fails().contains("refused the credentials"));
    // After a new login the next run goes on.
    trial.arrives(ONCE);
}

#[test]
fn secrets_that_are_echoed() {
    let secret = basic("ann", "s3cret").split_off("Basic ".len());
    for (path, method) in [("/token", "GET"), ("/uploads/", "POST"), ("/uploads/", "PUT")] {
        let said = format!("you sent ann:s3cret, {secret} and s3cret");
        let faults = vec![Fault::always(method, path, Effect::Answer(403, said))];
        let trial = Trial::new(FakeOptions { auth: service(|_| {}), faults, ..FakeOptions::default() });
        let said = trial.password("ann", "s3cret").fails();
        assert!(!said.contains("s3cret") && !said.contains(&secret), "{said}");
        assert!(said.contains("you sent"), "{said}");
    }
}

#[test]
fn challenges_of_each_kind() {
    for open_ping in [false, true] {
        for jwt in [false, true] {
            for scopes in
                [Scopes::Unsaid, Scopes::Said, Scopes::Own("repository:tenant/ns/repo:pull,push".into())]
            {
                let trial = ann(|service| {
                    *service = TokenService { jwt, scopes, open_ping, ..service.clone() };
                });
                trial.arrives(SIZE);
                assert!(trial.fake.token_requests() <= 2, "{}", trial.log());
                trial.client().push_manifest(&trial.target(), MANIFEST_TYPE, MANIFEST).unwrap();
                trial.client().pull_manifest(&trial.target()).unwrap();
            }
        }
    }
}

#[test]
fn identity_token() {
    let trial = Trial::auth(service(|service| service.identity_token = Some("refresh".into())));
    let trial = trial.entry(&serde_json::json!({ "identitytoken": "refresh" }));
    trial.arrives(SIZE);
    assert!(trial.fake.count("POST", "/token") >= 1, "{}", trial.log());
}

#[test]
fn identity_token_that_is_wrong() {
    let trial = Trial::auth(service(|service| service.identity_token = Some("refresh".into())));
    let trial = trial.entry(&serde_json::json!({ "identitytoken": "hunter2" }));
    let said = trial.fails();
    assert!(said.contains("REGISTRY refused the credentials from DIR/auth.json"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    assert!(trial.fake.token_requests() <= 2, "{}", trial.log());
}

#[test]
fn tokens_that_expire() {
    // With what is said of it: the truth, nothing, and a lie.
    std::thread::scope(|scope| {
        for expires_in in [Some(1), None, Some(300)] {
            scope.spawn(move || {
                let auth = service(|service| {
                    service.lifetime = Duration::from_secs(1);
                    service.expires_in = expires_in;
                });
                let faults = vec![
                    Fault::once(
                        "PUT",
                        "/uploads/",
                        Effect::PauseAfter(SIZE / 4, Duration::from_millis(1200)),
                    ),
                    Fault::once("PUT", "/uploads/", Effect::CloseAfter(SIZE / 2)),
                ];
                let trial = Trial::new(FakeOptions { auth, faults, ..FakeOptions::default() });
                let trial = trial.password("ann", "s3cret");
                trial.arrives(ONCE);
                assert!(trial.fake.token_requests() <= 8, "{}", trial.log());
            });
        }
    });
}

#[test]
fn logins_side_by_side() {
    // Tokens that end at once for six blobs, and scopes that are learnt at once after those of a removal.
    for scopes in [Scopes::Unsaid, Scopes::Said] {
        let auth = service(|service| {
            service.lifetime = Duration::from_millis(800);
            service.scopes = scopes;
        });
        let pause = Effect::PauseAfter(1000, Duration::from_secs(1));
        let faults = vec![Fault { times: 6, ..Fault::once("PUT", "/uploads/", pause) }];
        let trial = Trial::new(FakeOptions { auth, faults, ..FakeOptions::default() });
        let trial = trial.password("ann", "s3cret").with(|options| options.concurrency = 6);
        trial.in_time(|client, target| {
            client.check_push(target).unwrap();
            let blobs: Vec<Arc<dyn BlobContent>> = (0..6_u8)
                .map(|number| Arc::new(MemoryBlob::new(vec![number; 4000])) as Arc<dyn BlobContent>)
                .collect();
            client.push_blobs(target, &blobs, &|_, _| {}).unwrap();
        });
        assert_eq!(trial.fake.uploaded(), 6 * 4000, "{}", trial.log());
        assert!(trial.fake.token_requests() <= 8, "{}", trial.log());
    }
}

#[test]
fn token_service_elsewhere() {
    for status in [302, 307] {
        let redirect = |method| vec![Fault::always(method, "/token", Effect::Redirect(status))];
        let auth = || service(|service| service.identity_token = Some("refresh".into()));
        let trial =
            Trial::new(FakeOptions { auth: auth(), faults: redirect("POST"), ..FakeOptions::default() });
        let trial = trial.entry(&serde_json::json!({ "identitytoken": "refresh" }));
        let said = trial.fails();
        assert!(trial.fake.seen().iter().all(|seen| seen.host == trial.fake.address()), "{}", trial.log());
        assert!(said.contains("would get the credentials"), "{said}");
        let trial =
            Trial::new(FakeOptions { auth: auth(), faults: redirect("GET"), ..FakeOptions::default() });
        let said = trial.password("ann", "s3cret").fails();
        assert!(said.contains("refused"), "{said}");
    }
}

#[test]
fn login_lost_in_a_blob() {
    for (method, skip) in [("PUT", 0), ("PUT", 1), ("GET", 0)] {
        let refusal = Effect::At(When::BeforeBody, Act::Reply(Reply::status(401)));
        let faults = vec![
            Fault::once("PUT", "/uploads/", Effect::CloseAfter(SIZE / 2)),
            Fault { skip, ..Fault::once(method, "/uploads/", refusal) },
        ];
        let auth = service(|_| {});
        let trial = Trial::new(FakeOptions { auth, faults, ..FakeOptions::default() });
        trial.password("ann", "s3cret").arrives(ONCE);
    }
}

#[test]
fn token_service_busy() {
    let busy = Effect::At(When::BeforeBody, Act::Reply(Reply::status(503)));
    for effect in [busy, Effect::At(When::BeforeBody, Act::Close), Effect::CutAfter(5)] {
        let faults = vec![Fault::once("GET", "/token", effect)];
        let trial = Trial::new(FakeOptions { auth: service(|_| {}), faults, ..FakeOptions::default() });
        trial.password("ann", "s3cret").arrives(SIZE);
    }
}

/// A trial whose blob is in another repository already.
fn elsewhere(trial: Trial) -> Trial {
    trial.fake.put_blob("models/base", &BYTES[..]);
    trial.with(|options| options.mount_from = vec!["models/base".into()])
}

#[test]
fn mounted() {
    for trial in [
        Trial::auth(Auth::Open),
        ann(|_| {}),
        ann(|service| service.scopes = Scopes::Said),
        Trial::auth(Auth::Basic { user: "ann".into(), password: "s3cret".into() }).password("ann", "s3cret"),
    ] {
        let trial = elsewhere(trial);
        trial.arrives(0);
    }
}

#[test]
fn mount_not_done() {
    let uploads = Uploads { no_mounts: true, ..Uploads::default() };
    let trial = elsewhere(Trial::new(FakeOptions { uploads: uploads.clone(), ..FakeOptions::default() }));
    trial.arrives(SIZE);
    assert_eq!(trial.fake.open_uploads(), 0, "{}", trial.log());
    // The bytes do not go out without a login to hear which one is wanted.
    let auth = service(|service| service.scopes = Scopes::Said);
    let trial = Trial::new(FakeOptions { auth, uploads, ..FakeOptions::default() });
    elsewhere(trial.password("ann", "s3cret")).arrives(SIZE);
}

#[test]
fn mount_not_allowed() {
    for scopes in [Scopes::Unsaid, Scopes::Said] {
        let forbidden = vec!["models/base".to_owned()];
        let trial = elsewhere(ann(|service| {
            *service = TokenService { scopes, forbidden, ..service.clone() };
        }));
        trial.arrives(SIZE);
        assert!(trial.fake.seen().len() <= 16, "{}", trial.log());
    }
}

#[test]
fn mount_refused_with_a_password() {
    let refusal = Reply::status(401).with("www-authenticate", "Basic realm=\"fake\"");
    let faults = vec![Fault::once("POST", "/uploads/", Effect::At(When::BeforeBody, Act::Reply(refusal)))];
    let auth = Auth::Basic { user: "ann".into(), password: "s3cret".into() };
    let trial = Trial::new(FakeOptions { auth, faults, ..FakeOptions::default() });
    elsewhere(trial.password("ann", "s3cret")).arrives(SIZE);
}

#[test]
fn mount_of_nothing() {
    let made = Effect::At(When::BeforeBody, Act::Reply(Reply::status(201)));
    elsewhere(Trial::faults([Fault::once("POST", "/uploads/", made)])).arrives(SIZE);
}

#[test]
fn mount_that_fails() {
    let fault = |status| {
        let reply = Effect::At(When::BeforeBody, Act::Reply(Reply::status(status)));
        Fault::once("POST", "/uploads/", reply)
    };
    for status in [400, 403, 404, 405] {
        elsewhere(Trial::faults([fault(status)])).arrives(SIZE);
    }
}
