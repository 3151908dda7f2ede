//! The registry in memory does to clients what the other tests rely on.
#![allow(clippy::unwrap_used)] // also in helpers, which clippy does not take for tests

mod support;

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Method, Response, StatusCode};
use starcar::digest::Digest;
use support::registry::{
    Act, Auth, Authority, Effect, FakeOptions, FakeRegistry, Fault, Locations, Ranges, Reply, Scopes,
    TokenService, Uploads, When,
};

const BLOB: &[u8] = &[7; 1_000_000];
const UPLOADS: &str = "/v2/ns/repo/blobs/uploads/";

/// Runs a conversation in which redirects are not followed.
fn talk<T>(conversation: impl AsyncFnOnce(Client) -> T) -> T {
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(conversation(client))
}

fn url(fake: &FakeRegistry, path: &str) -> String {
    if path.starts_with("http") { path.to_owned() } else { format!("http://{}{path}", fake.address()) }
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).unwrap().to_str().unwrap().to_owned()
}

/// Opens an upload; its location.
async fn open(client: &Client, fake: &FakeRegistry) -> String {
    let opened = client.post(url(fake, UPLOADS)).send().await.unwrap();
    assert_eq!(opened.status(), StatusCode::ACCEPTED);
    header(&opened, "location")
}

async fn send(
    client: &Client,
    method: Method,
    url: String,
    start: usize,
    bytes: &[u8],
) -> reqwest::Result<Response> {
    let mut request = client.request(method, url).body(bytes.to_vec());
    if !bytes.is_empty() {
        request = request.header("content-range", format!("{start}-{}", start + bytes.len() - 1));
    }
    request.send().await
}

fn end_of(location: &str) -> String {
    format!("{location}&digest={}", Digest::of(BLOB))
}

#[test]
fn cut_uploads_go_on() {
    for at in [1, 333_333, 999_999, 1_000_000] {
        let cut = Fault::once("PUT", "/uploads/", Effect::CloseAfter(at as u64));
        let fake = FakeRegistry::start(FakeOptions { faults: vec![cut], ..FakeOptions::default() });
        talk(async |client| {
            let location = open(&client, &fake).await;
            send(&client, Method::PUT, url(&fake, &end_of(&location)), 0, BLOB).await.unwrap_err();
            let status = client.get(url(&fake, &location)).send().await.unwrap();
            assert_eq!(status.status(), StatusCode::NO_CONTENT);
            assert_eq!(header(&status, "range"), format!("0-{}", at - 1));
            assert_eq!(fake.uploaded(), at as u64);
            let location = header(&status, "location");
            if at > 1000 {
                let wrong = send(&client, Method::PUT, url(&fake, &end_of(&location)), 1000, &BLOB[1000..]);
                let wrong = wrong.await.unwrap();
                assert_eq!(wrong.status(), StatusCode::RANGE_NOT_SATISFIABLE);
                assert_eq!(header(&wrong, "range"), format!("0-{}", at - 1));
            }
            let done = send(&client, Method::PUT, url(&fake, &end_of(&location)), at, &BLOB[at..]);
            assert_eq!(done.await.unwrap().status(), StatusCode::CREATED);
        });
        assert_eq!((fake.uploaded(), fake.open_uploads(), fake.blobs()), (1_000_000, 0, 1));
        assert_eq!(fake.uploaded_for(Digest::of(BLOB)), 1_000_000);
    }
}

#[test]
fn cut_uploads_are_lost() {
    let uploads = Uploads { lost_when_cut: Some("BLOB_UPLOAD_INVALID"), ..Uploads::default() };
    let cut = Fault::once("PUT", "/uploads/", Effect::CloseAfter(1000));
    let fake = FakeRegistry::start(FakeOptions { uploads, faults: vec![cut], ..FakeOptions::default() });
    talk(async |client| {
        let location = open(&client, &fake).await;
        send(&client, Method::PUT, url(&fake, &end_of(&location)), 0, BLOB).await.unwrap_err();
        let status = client.get(url(&fake, &location)).send().await.unwrap();
        assert_eq!(status.status(), StatusCode::NOT_FOUND);
        assert!(status.text().await.unwrap().contains("BLOB_UPLOAD_INVALID"));
    });
    assert_eq!(fake.open_uploads(), 0);
}

#[test]
fn bodies_that_are_refused_have_an_answer() {
    let uploads = Uploads { max_body: Some(1000), ..Uploads::default() };
    let fake = FakeRegistry::start(FakeOptions { uploads, ..FakeOptions::default() });
    talk(async |client| {
        let location = open(&client, &fake).await;
        let refused = send(&client, Method::PUT, url(&fake, &end_of(&location)), 0, BLOB).await.unwrap();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    });
    assert_eq!((fake.uploaded(), fake.open_uploads()), (0, 1));
}

#[test]
fn pieces_have_a_least_length() {
    let uploads = Uploads {
        min_piece: Some(1000),
        newest_location_only: true,
        locations: Locations::Url,
        ..Uploads::default()
    };
    let fake = FakeRegistry::start(FakeOptions { uploads, ..FakeOptions::default() });
    talk(async |client| {
        let opened = client.post(url(&fake, UPLOADS)).send().await.unwrap();
        assert_eq!(header(&opened, "oci-chunk-min-length"), "1000");
        let first = header(&opened, "location");
        let taken = send(&client, Method::PATCH, first.clone(), 0, &BLOB[..999]).await.unwrap();
        assert_eq!(taken.status(), StatusCode::ACCEPTED);
        let old = send(&client, Method::PATCH, first, 999, &BLOB[..1000]).await.unwrap();
        assert_eq!(old.status(), StatusCode::BAD_REQUEST);
        let next =
            send(&client, Method::PATCH, header(&taken, "location"), 999, &BLOB[..1000]).await.unwrap();
        assert_eq!(next.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    });
}

#[test]
fn bytes_are_dropped_and_answers_lost() {
    let faults = vec![
        Fault::once("PUT", "/uploads/", Effect::DropLastByte),
        Fault { skip: 1, ..Fault::once("PUT", "/uploads/", Effect::At(When::Done, Act::Close)) },
    ];
    let fake = FakeRegistry::start(FakeOptions { faults, ..FakeOptions::default() });
    talk(async |client| {
        let location = open(&client, &fake).await;
        let bad = send(&client, Method::PUT, url(&fake, &end_of(&location)), 0, BLOB).await.unwrap();
        assert!(bad.text().await.unwrap().contains("DIGEST_INVALID"));
        assert_eq!((fake.blobs(), fake.open_uploads()), (0, 0));
        let location = open(&client, &fake).await;
        send(&client, Method::PUT, url(&fake, &end_of(&location)), 0, BLOB).await.unwrap_err();
    });
    assert_eq!((fake.blobs(), fake.open_uploads()), (1, 0));
}

#[test]
fn redirects_lead_to_a_host_without_logins() {
    let auth = Auth::Basic { user: "ann".into(), password: "s3cret".into() };
    let faults = vec![
        Fault::always("PUT", "/uploads/", Effect::Redirect(307)),
        Fault::once(
            "HEAD",
            "",
            Effect::At(When::Done, Act::Reply(Reply::status(503).with("retry-after", "1"))),
        ),
    ];
    let fake = FakeRegistry::start(FakeOptions { auth, faults, ..FakeOptions::default() });
    talk(async |client| {
        let login = |request: reqwest::RequestBuilder| request.basic_auth("ann", Some("s3cret"));
        let busy = login(client.head(url(&fake, "/v2/"))).send().await.unwrap();
        assert_eq!((busy.status().as_u16(), header(&busy, "retry-after").as_str()), (503, "1"));
        let opened = login(client.post(url(&fake, UPLOADS))).send().await.unwrap();
        let target = url(&fake, &end_of(&header(&opened, "location")));
        let moved = login(client.put(target)).body(BLOB).send().await.unwrap();
        assert_eq!(moved.status(), StatusCode::TEMPORARY_REDIRECT);
        let target = header(&moved, "location");
        assert!(target.contains(&fake.other_address()), "{target}");
        let twice = login(client.put(&target)).body(BLOB).send().await.unwrap();
        assert_eq!(twice.status(), StatusCode::BAD_REQUEST);
        let done = client.put(&target).body(BLOB).send().await.unwrap();
        assert_eq!(done.status(), StatusCode::CREATED);
    });
    assert_eq!(fake.uploaded(), 1_000_000);
}

#[test]
fn tokens_expire_and_have_scopes() {
    let service = TokenService {
        identity_token: Some("refresh".into()),
        lifetime: Duration::from_millis(500),
        scopes: Scopes::Said,
        jwt: true,
        ..TokenService::default()
    };
    let fake = FakeRegistry::start(FakeOptions { auth: Auth::Service(service), ..FakeOptions::default() });
    talk(async |client| {
        let mount = url(&fake, &format!("{UPLOADS}?mount={}&from=models/base", Digest::of(BLOB)));
        let refused = client.post(&mount).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        let challenge = header(&refused, "www-authenticate");
        let scope = "repository:ns/repo:pull,push repository:models/base:pull";
        assert!(challenge.ends_with(&format!("scope=\"{scope}\"")), "{challenge}");
        let token = async |scope: &str| {
            let form =
                format!("grant_type=refresh_token&refresh_token=refresh&scope={}", scope.replace(' ', "+"));
            let answer = client.post(url(&fake, "/token")).body(form).send().await.unwrap();
            let answer: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            answer["access_token"].as_str().unwrap().to_owned()
        };
        let one = token("repository:ns/repo:pull,push").await;
        let refused = client.post(&mount).bearer_auth(one).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        let both = token(scope).await;
        assert_eq!(both.split('.').count(), 3);
        let opened = client.post(&mount).bearer_auth(&both).send().await.unwrap();
        assert_eq!(opened.status(), StatusCode::ACCEPTED);
        tokio::time::sleep(Duration::from_millis(600)).await;
        let late = client.post(&mount).bearer_auth(&both).send().await.unwrap();
        assert_eq!(late.status(), StatusCode::UNAUTHORIZED);
    });
    assert_eq!(fake.token_requests(), 2);
}

#[test]
fn several_ranges_and_referrers() {
    let get = |ranges, asked: &'static str| {
        let fake = FakeRegistry::start(FakeOptions { ranges, referrers: true, ..FakeOptions::default() });
        let digest = fake.put_blob("ns/repo", BLOB);
        talk(async |client| {
            let blob = client.get(url(&fake, &format!("/v2/ns/repo/blobs/{digest}")));
            let answer = blob.header("range", asked).send().await.unwrap();
            (answer.status().as_u16(), answer.bytes().await.unwrap())
        })
    };
    let several = "bytes=0-9,20-29";
    let (status, parts) = get(Ranges::Honoured, several);
    assert_eq!((status, String::from_utf8_lossy(&parts).matches("Content-Range").count()), (206, 2));
    assert_eq!(get(Ranges::SeveralRefused, several).0, 501);
    assert_eq!(get(Ranges::SeveralIgnored, several).1.len(), BLOB.len());
    assert_eq!(get(Ranges::SeveralRefused, "bytes=5-9").1.len(), 5);

    let fake = FakeRegistry::start(FakeOptions { referrers: true, ..FakeOptions::default() });
    let subject = Digest::of(b"subject");
    let manifest = format!(r#"{{"artifactType":"text/x","subject":{{"digest":"{subject}"}}}}"#);
    talk(async |client| {
        let put = client.put(url(&fake, "/v2/ns/repo/manifests/note")).body(manifest).send().await.unwrap();
        assert_eq!(header(&put, "oci-subject"), subject.to_string());
        for (query, count) in [("", 1), ("?artifactType=text/x", 1), ("?artifactType=text/y", 0)] {
            let list = client.get(url(&fake, &format!("/v2/ns/repo/referrers/{subject}{query}"))).send();
            let list: serde_json::Value =
                serde_json::from_str(&list.await.unwrap().text().await.unwrap()).unwrap();
            assert_eq!(list["manifests"].as_array().unwrap().len(), count, "{query}");
        }
    });
    assert_eq!(fake.tags("ns/repo"), ["note"]);
}

#[test]
fn certificates_are_asked_for() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let tls: Option<Arc<rustls::ServerConfig>> = Some(authority.server(Some(&clients)));
    let fake = FakeRegistry::start(FakeOptions { tls, ..FakeOptions::default() });
    let identity = clients.client();
    let both = format!("{}{}", identity.certificate, identity.key);
    talk(async |_| {
        let builder = || {
            let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
            Client::builder().no_proxy().tls_certs_only([root])
        };
        let address = format!("https://{}/v2/", fake.address());
        builder().build().unwrap().get(&address).send().await.unwrap_err();
        assert_eq!(fake.seen().len(), 0);
        let identity = reqwest::Identity::from_pem(both.as_bytes()).unwrap();
        let known = builder().identity(identity).build().unwrap();
        assert_eq!(known.get(&address).send().await.unwrap().status(), StatusCode::OK);
    });
}
