//! What `KServe` and engines find in an image: its config, the tools that modelcar containers run, the model's files.
//! Must not know how layers store them.

use oci_spec::image::{Config, ImageConfiguration};

use super::{
    finding::{Findings, Place},
    layer::LayerView,
    names::MODELS,
    rules,
    tree::{Node, NodeKind, Placed, Tree},
};

/// The user that `KServe`'s modelcar containers run as.
const MODELCAR_USER: u64 = 1010;
/// Users that containers of a served model run as: the modelcar's, and the usual one of engines.
const USERS: [&str; 2] = ["1010", "1000"];
/// What modelcar containers run besides the shell.
const TOOLS: [&str; 4] = ["ln", "ls", "mkdir", "sleep"];
/// Where programs are looked for when the image does not say it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the checks see.
pub(super) struct ImageView<'a> {
    pub(super) config: &'a ImageConfiguration,
    pub(super) layers: &'a [LayerView],
    pub(super) tree: &'a Tree,
    /// What `/etc/passwd` says, where it could be read.
    pub(super) passwd: Option<&'a str>,
    /// Directories of compile caches, as layers name them: files there may be hard links.
    pub(super) caches: &'a [String],
}

/// Checks all of it.
pub(super) fn check(image: &ImageView<'_>, findings: &mut Findings) {
    let config = image.config.config().clone().unwrap_or_default();
    execution(&config, findings);
    passwd(image, findings);
    tools(image, &config, findings);
    models(image, findings);
}

fn execution(config: &Config, findings: &mut Findings) {
    let here = Place::default;
    if let Some(words) = config.entrypoint().as_ref().filter(|words| !words.is_empty()) {
        findings.add(&rules::ENTRYPOINT_SET, here(), format!("the entrypoint is {words:?}"));
    }
    let user = config.user().as_deref().unwrap_or_default();
    let name = user.split(':').next().unwrap_or_default();
    match name.parse::<u64>() {
        Ok(0) => findings.add(&rules::USER_MISSING, here(), format!("the image's user is {user:?}, root")),
        Ok(_) => {}
        Err(_) if name.is_empty() || name == "root" => {
            findings.add(&rules::USER_MISSING, here(), "the image states no user but root");
        }
        Err(_) => findings.add(&rules::USER_NAME, here(), format!("the image's user is {user:?}")),
    }
}

fn passwd(image: &ImageView<'_>, findings: &mut Findings) {
    for line in image.passwd.unwrap_or_default().lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, user, group, ..] = fields[..] else { continue };
        if USERS.contains(&user) && group != "0" {
            let message = format!("user {user} ({name:?}) is in group {group}");
            findings.add(&rules::PASSWD_USER, Place::default().file("etc/passwd"), message);
        }
    }
}

fn tools(image: &ImageView<'_>, config: &Config, findings: &mut Findings) {
    let stated = config.env().iter().flatten().rev().find_map(|variable| variable.strip_prefix("PATH="));
    let path = stated.unwrap_or(PATH);
    let runs = |tool: &str| {
        let places = path.split(':').filter(|directory| directory.starts_with('/'));
        let found = |directory| image.tree.find(&format!("{directory}/{tool}"));
        places.filter_map(found).any(|placed| may_run(&placed.node))
    };
    let missing = |tool: &str| !runs(tool) && !image.tree.is_incomplete;
    if missing("sh") {
        findings.add(
            &rules::SHELL_MISSING,
            Place::default(),
            format!("there is no `sh` in {path} that may be executed"),
        );
        // The others are run by it.
        return;
    }
    for tool in TOOLS.into_iter().filter(|tool| missing(tool)) {
        findings.add(
            &rules::TOOL_MISSING,
            Place::default(),
            format!("there is no `{tool}` in {path} that may be executed"),
        );
    }
}

/// Whether the modelcar's user, whose group is 0, may run a file.
fn may_run(node: &Node) -> bool {
    let bit = match (node.uid, node.gid) {
        (MODELCAR_USER, _) => 0o100,
        (_, 0) => 0o010,
        _ => 0o001,
    };
    matches!(node.kind, NodeKind::Regular { .. }) && node.mode & bit != 0
}

fn models(image: &ImageView<'_>, findings: &mut Findings) {
    let place = |placed: Option<&Placed>| {
        let digest = |placed: &Placed| image.layers.get(placed.layer).map(|layer| layer.digest);
        let layer = placed.map(|placed| Place::layer(placed.layer, digest(placed)));
        let path = placed.map_or(MODELS, |placed| placed.node.path.as_str());
        layer.unwrap_or_default().file(path)
    };
    let tree = image.tree;
    let directory = tree.get(MODELS);
    match directory.map(|placed| &placed.node.kind) {
        None if !tree.has(MODELS) => {
            if !tree.is_incomplete {
                findings.add(&rules::MODELS_MISSING, place(None), "the image has no /models");
            }
            return;
        }
        Some(NodeKind::Symlink { target }) => {
            findings.add(
                &rules::MODELS_SYMLINK,
                place(directory),
                format!("/models is a link to {target:?}"),
            );
            return;
        }
        Some(NodeKind::Directory) | None => {}
        Some(_) => {
            findings.add(&rules::MODELS_KIND, place(directory), "/models is a file");
            return;
        }
    }
    if tree.below(MODELS).next().is_none() && !tree.is_incomplete {
        findings.add(&rules::MODELS_EMPTY, place(directory), "/models has no files");
    }
    for placed in directory.into_iter().chain(tree.below(MODELS)) {
        file(image, placed, &|| place(Some(placed)), findings);
    }
}

/// A file or directory of the model.
fn file(image: &ImageView<'_>, placed: &Placed, place: &impl Fn() -> Place, findings: &mut Findings) {
    let Node { path, kind, mode, uid, gid } = &placed.node;
    match kind {
        NodeKind::Directory if mode & 0o005 != 0o005 => {
            findings.add(&rules::MODELS_DIRECTORY_MODE, place(), format!("its mode is {mode:04o}"));
        }
        NodeKind::Regular { .. } if mode & 0o004 == 0 => {
            findings.add(&rules::MODELS_FILE_MODE, place(), format!("its mode is {mode:04o}"));
        }
        NodeKind::Directory | NodeKind::Regular { .. } => {}
        NodeKind::Symlink { target } => symlink(image.tree, path, target, place, findings),
        NodeKind::Hardlink { target } => {
            if !image.caches.iter().any(|cache| super::names::is_below(path, cache)) {
                findings.add(&rules::MODELS_HARDLINK, place(), format!("it is a hard link to {target:?}"));
            }
        }
        NodeKind::Special => {
            findings.add(&rules::MODELS_SPECIAL, place(), "it is no file, directory or link");
        }
    }
    if (*uid, *gid) != (0, 0) && !matches!(kind, NodeKind::Hardlink { .. }) {
        findings.add(&rules::MODELS_OWNER, place(), format!("it belongs to {uid}:{gid}"));
    }
}

fn symlink(tree: &Tree, path: &str, target: &str, place: &impl Fn() -> Place, findings: &mut Findings) {
    let leads = format!("it is a link to {target:?}");
    if target.starts_with('/') {
        findings.add(&rules::MODELS_SYMLINK_ABSOLUTE, place(), leads);
        return;
    }
    match Tree::target_below(path, target, MODELS) {
        None => findings.add(&rules::MODELS_SYMLINK_OUTSIDE, place(), leads),
        Some(found) if tree.resolve(&found).is_none() && !tree.is_incomplete => {
            findings.add(&rules::MODELS_SYMLINK_DANGLING, place(), leads);
        }
        Some(_) => {}
    }
}
