//! Where uploads and blobs are said to be, and how far uploads are said to be.

use crate::harness::*;

fn cut() -> Fault {
    Fault::once("PUT", "/uploads/", Effect::CloseAfter(SIZE / 2))
}

fn account() -> Auth {
    Auth::Basic { user: "ann".into(), password: "s3cret".into() }
}

/// No login went to the other host, and something did.
#[track_caller]
fn kept_the_login(trial: &Trial) {
    let other = trial.fake.other_address();
    let seen = trial.fake.seen();
    let there: Vec<_> = seen.iter().filter(|seen| seen.host == other).collect();
    assert!(!there.is_empty(), "{}", trial.log());
    assert!(there.iter().all(|seen| seen.authorization.is_none()), "{}", trial.log());
}

#[test]
fn location_missing() {
    let trial = Trial::faults([Fault::always("POST", "", Effect::WithoutHeader("location"))]);
    let said = trial.fails();
    assert!(said.starts_with("cannot push blob DIGEST (REGISTRY/ns/repo:v1): "), "{said}");
    assert!(said.to_lowercase().contains("location"), "{said}");
    assert_eq!(trial.fake.count("POST", ""), 1, "{}", trial.log());
}

#[test]
fn location_missing_later() {
    let without = |method| Fault::always(method, "/uploads/", Effect::WithoutHeader("location"));
    Trial::faults([cut(), without("GET"), without("PATCH")]).arrives(ONCE);
    let cut = Fault { skip: 1, ..Fault::once("PATCH", "", Effect::CloseAfter(1000)) };
    let trial = Trial::faults([cut, without("GET"), without("PATCH")]);
    trial.with(|options| options.chunk = Some(SIZE / 4)).arrives(ONCE);
}

#[test]
fn location_of_each_kind() {
    for locations in [Locations::Path, Locations::Url, Locations::Relative] {
        let uploads = Uploads { locations, ..Uploads::default() };
        Trial::new(FakeOptions { uploads, faults: vec![cut()], ..FakeOptions::default() }).arrives(ONCE);
    }
}

#[test]
fn location_elsewhere() {
    let uploads = Uploads { locations: Locations::Elsewhere, ..Uploads::default() };
    let options = FakeOptions { uploads, faults: vec![cut()], auth: account(), ..FakeOptions::default() };
    let trial = Trial::new(options).password("ann", "s3cret");
    trial.arrives(ONCE);
    kept_the_login(&trial);
}

#[test]
fn location_that_changes() {
    for chunk in [None, Some(SIZE / 4)] {
        let uploads = Uploads { newest_location_only: true, ..Uploads::default() };
        let patch = Fault { skip: 1, ..Fault::once("PATCH", "", Effect::CloseAfter(1000)) };
        let faults = vec![cut(), patch];
        let trial = Trial::new(FakeOptions { uploads, faults, ..FakeOptions::default() });
        trial.with(|options| options.chunk = chunk).arrives(ONCE);
    }
}

#[test]
fn redirected_upload() {
    for (method, chunk) in [("PUT", None), ("PATCH", Some(SIZE / 4)), ("POST", None)] {
        for status in [307, 308] {
            let faults = vec![Fault::always(method, "/uploads/", Effect::Redirect(status))];
            let options = FakeOptions { faults, auth: account(), ..FakeOptions::default() };
            let trial = Trial::new(options).password("ann", "s3cret");
            let trial = trial.with(|options| options.chunk = chunk);
            trial.arrives(ONCE);
            kept_the_login(&trial);
        }
    }
}

#[test]
fn redirected_pull() {
    let faults = vec![Fault::always("GET", "/blobs/", Effect::Redirect(307))];
    let options = FakeOptions { faults, auth: account(), ..FakeOptions::default() };
    let trial = Trial::new(options).password("ann", "s3cret");
    trial.fake.put_blob(REPOSITORY, &BYTES[..]);
    let (client, mut sink) = (trial.client(), Vec::new());
    client.pull_blob(&trial.target(), digest(), SIZE, &mut sink).unwrap();
    assert!(sink == **BYTES);
    let range = client.blob_source(&trial.target(), digest(), SIZE);
    let bytes = starcar::blob::RangeSource::read_range(&range, 1000, 1000).unwrap();
    assert!(bytes == BYTES[1000..2000]);
    kept_the_login(&trial);
}

#[test]
fn redirected_in_a_circle() {
    let circle = Reply::status(307).with("location", "/v2/ns/repo/blobs/uploads/1?_state=1");
    let reply = Effect::At(When::BeforeBody, Act::Reply(circle));
    let trial = Trial::faults([Fault::always("PUT", "/uploads/", reply)]);
    let said = trial.fails();
    assert!(said.starts_with("cannot push blob DIGEST (REGISTRY/ns/repo:v1): "), "{said}");
    assert!(said.contains("redirect"), "{said}");
    assert!(trial.fake.count("PUT", "") <= 60, "{}", trial.log());
}

#[test]
fn offset_that_is_wrong() {
    let quarter = SIZE / 4;
    for range in [
        format!("0-{}", 3 * quarter - 1),
        format!("0-{}", quarter - 1),
        "0-99999999999".into(),
        "so far".into(),
    ] {
        let lie = Fault::always("GET", "/uploads/", Effect::WithHeader("range", range));
        Trial::faults([cut(), lie]).arrives(HALF_AGAIN);
    }
    let nothing = Fault::always("GET", "/uploads/", Effect::WithoutHeader("range"));
    Trial::faults([cut(), nothing]).arrives(HALF_AGAIN);
}
