//! What the hub says of a repository: the commit of a revision, and the files of a commit. Must not know the cache.
//!
//! Source: `huggingface_hub` 2.4, `hf_api.py` (`model_info`, `list_repo_tree`) and `utils/_pagination.py`.

use std::collections::BTreeMap;

use reqwest::{
    Url,
    header::{HeaderMap, LINK},
};
use serde::Deserialize;

use super::{
    HubError, HubReference,
    net::{About, Net},
};
use crate::snapshot::{ExpectedDigest, revision::is_commit, tree::ListedFile};

/// Longest answer in bytes: a page has a thousand files at about 300 bytes each.
const DOCUMENT_MAX: usize = 32 << 20;
/// Most entries of a listing, files and directories. The hub advises to stay below 100,000 files.
const ENTRIES_MAX: usize = 200_000;
/// Most pages of a listing: at a thousand entries each, the hub needs a fifth of it.
const PAGES_MAX: usize = 1000;
/// Most bytes of all pages together, about four times what so many entries have.
const LISTING_MAX: usize = 256 << 20;

/// Why a `Link` header is refused.
const UNREADABLE: &str = "the `Link` header of the list cannot be read";

/// The files of a commit by their path.
pub(super) type Listing = BTreeMap<String, ListedFile>;

#[derive(Deserialize)]
struct RawInfo {
    sha: String,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    oid: String,
    size: u64,
}

/// The commit that a revision stands for.
pub(super) fn commit_of(net: &Net, reference: &HubReference) -> Result<String, HubError> {
    let asked = reference.asked();
    let about = about(reference, asked, "look up");
    let repository = reference.repository.split('/');
    let url = net.url(["api", "models"].into_iter().chain(repository).chain(["revision", asked]));
    let (_, body) = net.document(&url, DOCUMENT_MAX, &about)?;
    let info: RawInfo = serde_json::from_slice(&body)
        .map_err(|error| about.protocol(format!("the answer is none: {error}")))?;
    if !is_commit(&info.sha) {
        return Err(about.protocol("the commit in the answer is none"));
    }
    Ok(info.sha)
}

/// The files of a commit.
pub(super) fn files_of(net: &Net, reference: &HubReference, commit: &str) -> Result<Listing, HubError> {
    let about = about(reference, commit, "list the files of");
    let repository = reference.repository.split('/');
    let mut url = net.url(["api", "models"].into_iter().chain(repository).chain(["tree", commit]));
    url.query_pairs_mut().append_pair("recursive", "true").append_pair("expand", "false");
    let mut listing = Listing::new();
    let (mut entries, mut bytes) = (0_usize, 0_usize);
    // A list that goes on without end would keep us for ever, whatever is in it.
    for _ in 0..PAGES_MAX {
        let (headers, body) = net.document(&url, DOCUMENT_MAX, &about)?;
        let page: Vec<RawEntry> = serde_json::from_slice(&body)
            .map_err(|error| about.protocol(format!("the answer is no list of files: {error}")))?;
        let is_empty = page.is_empty();
        entries = entries.saturating_add(page.len());
        bytes = bytes.saturating_add(body.len());
        if entries > ENTRIES_MAX {
            return Err(about.protocol(format!("it has more than {ENTRIES_MAX} files and directories")));
        }
        if bytes > LISTING_MAX {
            return Err(about.protocol(format!("the list has more than {LISTING_MAX} bytes")));
        }
        for entry in page.into_iter().filter(|entry| entry.kind == "file") {
            let path = entry.path.clone();
            if listing.insert(entry.path.clone(), entry.into()).is_some() {
                return Err(about.protocol(format!("`{}` is listed twice", path.escape_debug())));
            }
        }
        match next_page(&headers, &url).map_err(|reason| about.protocol(reason))? {
            None => return Ok(listing),
            Some(_) if is_empty => return Err(about.protocol("a page of the list is empty and not the last")),
            // The token goes along.
            Some(next) if !net.is_hub(&next) => {
                return Err(about.protocol("the list goes on at another host, which is not followed"));
            }
            Some(next) => url = next,
        }
    }
    Err(about.protocol(format!("the list has more than {PAGES_MAX} pages")))
}

impl From<RawEntry> for ListedFile {
    fn from(raw: RawEntry) -> Self {
        // For a file in LFS `oid` is the id of the pointer, not of the content.
        match raw.lfs {
            Some(lfs) => Self { size: lfs.size, digest: ExpectedDigest::from_etag(&lfs.oid) },
            None => Self { size: raw.size, digest: ExpectedDigest::from_etag(&raw.oid) },
        }
    }
}

fn about(reference: &HubReference, revision: &str, what: &str) -> About {
    About {
        action: format!("{what} {} at {revision}", reference.repository),
        repository: reference.repository.clone(),
        revision: revision.to_owned(),
        file: None,
    }
}

/// The address with the relation `next` of `Link` headers (RFC 8288). A header that cannot be read is an error: taken for
/// none it would end the list early.
fn next_page(headers: &HeaderMap, base: &Url) -> Result<Option<Url>, &'static str> {
    for value in headers.get_all(LINK) {
        if let Some(next) = next_of(value.to_str().map_err(|_| UNREADABLE)?)? {
            return base.join(next).map(Some).map_err(|_| UNREADABLE);
        }
    }
    Ok(None)
}

/// The target with the relation `next` of one header.
fn next_of(header: &str) -> Result<Option<&str>, &'static str> {
    let mut rest = header.trim();
    while !rest.is_empty() {
        let (target, behind) =
            rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or(UNREADABLE)?;
        let (parameters, others) = split_outside_quotes(behind, b',').ok_or(UNREADABLE)?;
        if is_next(parameters).ok_or(UNREADABLE)? {
            return Ok(Some(target));
        }
        rest = others.trim();
    }
    Ok(None)
}

/// Whether a link's parameters (`; rel="next"; …`) have the relation `next` among theirs.
fn is_next(parameters: &str) -> Option<bool> {
    let mut rest = parameters.trim();
    if !rest.is_empty() {
        rest = rest.strip_prefix(';')?;
    }
    while !rest.is_empty() {
        let (parameter, others) = split_outside_quotes(rest, b';')?;
        rest = others;
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        // The first `rel` counts.
        if name.trim().eq_ignore_ascii_case("rel") {
            let relations = value.trim().trim_matches('"').split_ascii_whitespace();
            return Some(relations.into_iter().any(|relation| relation.eq_ignore_ascii_case("next")));
        }
    }
    Some(false)
}

/// What lies before and behind the first `separator` that is in no quoted text; `None` where a quote does not end.
fn split_outside_quotes(text: &str, separator: u8) -> Option<(&str, &str)> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            // A separator is ASCII, so that the position is one between letters.
            byte if byte == separator && !is_quoted => {
                return Some((text.get(..position)?, text.get(position + 1..)?));
            }
            _ => {}
        }
    }
    (!is_quoted).then_some((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let base: Url = "https://hub.example/api/models/a/b/tree/main?recursive=true".parse().unwrap();
        let next = |text: &str| {
            let headers = [(LINK, text.parse().unwrap())].into_iter().collect();
            next_page(&headers, &base).map(|found| found.map(String::from))
        };
        let expected = Ok(Some("https://hub.example/x?cursor=1".to_owned()));
        for text in [
            "<https://hub.example/x?cursor=1>; rel=\"next\"",
            "</y>; rel=\"prev\", </x?cursor=1>; rel=\"next\"",
            "</y>; title=\"a, <b>; rel=next\"; rel=prev, </x?cursor=1>; rel=next",
            "</x?cursor=1>; title=\"a \\\", b\"; Rel=\"last NEXT\"",
        ] {
            assert_eq!(next(text), expected, "{text}");
        }
        assert_eq!(next("</x?a,b>; rel=next"), Ok(Some("https://hub.example/x?a,b".to_owned())));
        for text in
            ["", "<x>", "</x>; rel=\"prev\"", "</x>; rel=\"prev\"; rel=next", "</x>; title=\"rel=next\""]
        {
            assert_eq!(next(text), Ok(None), "{text}");
        }
        for text in
            ["<", "<x", "x; rel=\"next\"", "</x>; rel=\"next", "</x> rel=next", "<http://[>; rel=next"]
        {
            assert!(next(text).is_err(), "{text}");
        }
        assert_eq!(next_page(&HeaderMap::new(), &base), Ok(None));
    }

    #[test]
    fn lfs_files_are_known_by_their_content() {
        let (git, sha) = ("1".repeat(40), "2".repeat(64));
        let text = format!(
            r#"[{{"type":"file","path":"a","size":3,"oid":"{git}"}},
                {{"type":"file","path":"b","size":130,"oid":"{git}","lfs":{{"oid":"{sha}","size":9,"pointerSize":130}}}},
                {{"type":"directory","path":"c","oid":"{git}","size":0}}]"#
        );
        let entries: Vec<RawEntry> = serde_json::from_str(&text).unwrap();
        let files: Vec<ListedFile> = entries.into_iter().map(ListedFile::from).collect();
        assert_eq!((files[0].size, files[1].size), (3, 9));
        assert_eq!(files[1].digest, ExpectedDigest::from_etag(&sha));
    }
}
