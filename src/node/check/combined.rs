//! The files of containerd's settings, put together as a release of it does. Must not know where they are read from, nor
//! which settings are good.
//!
//! Sources: `services/server/config` of containerd 1.6.8, 1.6.36, 1.7.2, 1.7.12, 1.7.18 and 1.7.35;
//! `cmd/containerd/server/config`, `cmd/containerd/server` and `plugins/cri` of 2.0.0, 2.0.14, 2.1.0, 2.1.9, 2.2.0 to
//! 2.2.3, 2.2.9, 2.3.0, 2.3.4 to 2.3.7, 2.4.0 and 2.4.2 (containerd#9223, #9982, #12608, #12891, #13939).

use toml::{Table, Value};

use super::plugins::{CRI_RUNTIME, CRI_THREE, CRI_TWO};
use crate::node::Version;

/// Deepest tables that are put into each other; deeper ones are replaced.
const DEPTH_MAX: usize = 16;

/// A file.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Where it is, for people.
    pub(super) at: String,
    /// What it says.
    pub(super) table: Table,
}

impl File {
    /// The version that it gives; 0 where it gives none.
    pub(super) fn version(&self) -> i64 {
        self.table.get("version").and_then(Value::as_integer).unwrap_or(0)
    }
}

/// What containerd makes of its files.
#[derive(Debug, Default)]
pub(super) struct Combined {
    /// What they say together.
    pub(super) table: Table,
    /// The version by which it is read; 1 where no file gives any.
    pub(super) version: i64,
    /// The file that decided it, for people.
    pub(super) version_at: String,
    /// Whether settings of images were moved from version 2's place to that of version 3.
    pub(super) is_moved: bool,
    /// Files with settings of images in version 2's place that were not moved with the rest, because no runtimes stand
    /// beside them.
    pub(super) left_behind: Vec<String>,
    /// A file that is not taken, because it gives a higher version than the main file.
    pub(super) refused: Option<String>,
    /// Versions of which it is not known what containerd makes together, because its own is not known.
    pub(super) undecided: Vec<i64>,
}

/// How a release does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// 1.x: of a plugin, what the last file says that has anything of it; the version is the last that is given.
    Replaced,
    /// 2.0 to 2.2: tables within each other; moved to version 3 afterwards, if the last version that is given is 2.
    Merged,
    /// 2.3 and later: each file is moved to the newest version, and then they are merged.
    MovedFirst,
    /// Any of them, where it makes no difference.
    Any,
}

impl Way {
    fn of(containerd: Option<Version>) -> Self {
        match containerd {
            None => Self::Any,
            Some(version) if version < Version::new(2, 0, 0) => Self::Replaced,
            Some(version) if version < Version::new(2, 3, 0) => Self::Merged,
            Some(_) => Self::MovedFirst,
        }
    }
}

/// The highest version of the file that a release reads.
pub(super) fn newest(containerd: Version) -> i64 {
    match containerd {
        version if version < Version::new(2, 0, 0) => 2,
        version if version < Version::new(2, 3, 0) => 3,
        version if version < Version::new(2, 5, 0) => 4,
        // Not known yet.
        _ => i64::MAX,
    }
}

/// Puts files together, the main file first, in the order in which containerd reads them.
pub(super) fn combine(files: Vec<File>, containerd: Option<Version>) -> Combined {
    let way = Way::of(containerd);
    let mut combined = Combined { version: 1, ..Combined::default() };
    let mut given: Vec<i64> = files.iter().map(File::version).filter(|version| *version > 0).collect();
    given.sort_unstable();
    given.dedup();
    if way == Way::Any && given.len() > 1 {
        combined.undecided.clone_from(&given);
    }
    // Files of 2.x without a version, or of version 1, are taken for what was reached before them.
    if matches!(way, Way::Merged | Way::MovedFirst) {
        combined.version = containerd.map_or(3, |containerd| newest(containerd).min(4));
    }
    let refuses =
        containerd.is_some_and(|version| (Version::new(2, 3, 0)..Version::new(2, 3, 5)).contains(&version));
    let mut main = 0;
    for mut file in files {
        let version = file.version();
        main = if main == 0 { version } else { main };
        if refuses && version > main && combined.refused.is_none() {
            combined.refused =
                Some(format!("{} has version = {version}, and the main file version = {main}", file.at));
        }
        if version < 2 && matches!(way, Way::Merged | Way::MovedFirst) {
            rename(&mut file.table);
        }
        if way == Way::MovedFirst {
            if version < combined.version {
                move_images(&mut file.table, &file.at, &mut combined);
            }
            if version > combined.version {
                (combined.version, combined.version_at) = (version, file.at);
            }
        } else if version > 1 || (version == 1 && matches!(way, Way::Replaced | Way::Any)) {
            (combined.version, combined.version_at) = (version, file.at);
        }
        merge_file(&mut combined.table, file.table, way);
    }
    if way == Way::Merged && combined.version < 3 {
        let mut table = std::mem::take(&mut combined.table);
        let at = combined.version_at.clone();
        move_images(&mut table, &at, &mut combined);
        combined.table = table;
        combined.version = 3;
    }
    combined
}

/// Puts what a file says over what files before it said.
fn merge_file(base: &mut Table, later: Table, way: Way) {
    for (name, value) in later {
        match (name.as_str(), base.get_mut(&name), value) {
            ("disabled_plugins", Some(Value::Array(base)), Value::Array(later)) => base.extend(later),
            // Of 1.x's plugins and all releases' proxies, the last file's is the only word.
            ("plugins", Some(Value::Table(base)), Value::Table(later)) if way != Way::Replaced => {
                merge(base, later, 0);
            }
            ("plugins" | "proxy_plugins", Some(Value::Table(base)), Value::Table(later)) => {
                base.extend(later);
            }
            (_, _, value) => {
                base.insert(name, value);
            }
        }
    }
}

/// Puts `later` over `base`, table by table.
fn merge(base: &mut Table, later: Table, depth: usize) {
    for (name, value) in later {
        match (base.get_mut(&name), value) {
            (Some(Value::Table(base)), Value::Table(later)) if depth < DEPTH_MAX => {
                merge(base, later, depth + 1);
            }
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}

/// Gives plugins of version 1 their names of version 2; of those that are looked at, CRI alone had another.
fn rename(table: &mut Table) {
    let Some(Value::Table(plugins)) = table.get_mut("plugins") else { return };
    if let Some(cri) = plugins.remove("cri") {
        plugins.insert(CRI_TWO.to_owned(), cri);
    }
}

/// Moves CRI's settings to their places of version 3, as far as containerd does.
fn move_images(table: &mut Table, at: &str, combined: &mut Combined) {
    let Some(Value::Table(plugins)) = table.get_mut("plugins") else { return };
    let Some(Value::Table(old)) = plugins.remove(CRI_TWO) else { return };
    combined.is_moved = true;
    let containerd = old.get("containerd").and_then(Value::as_table);
    let runtimes = containerd.and_then(|containerd| containerd.get("runtimes"));
    if let Some(images) = section(plugins, CRI_THREE) {
        for name in ["registry", "max_concurrent_downloads", "image_pull_with_sync_fs"] {
            images.extend(old.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        // containerd looks for runtimes first, and goes no further where there are none.
        for name in ["snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"] {
            let value = containerd.and_then(|containerd| containerd.get(name));
            if runtimes.is_some() {
                images.extend(value.map(|value| (name.to_owned(), value.clone())));
            } else if value.is_some() && !combined.left_behind.iter().any(|known| known == at) {
                combined.left_behind.push(at.to_owned());
            }
        }
    }
    if let Some(runtimes) = runtimes
        && let Some(runtime) = section(plugins, CRI_RUNTIME)
        && let Some(containerd) = section(runtime, "containerd")
    {
        containerd.entry("runtimes").or_insert_with(|| runtimes.clone());
    }
}

/// The table of a name, made where there is none; nothing where something else has the name.
fn section<'a>(table: &'a mut Table, name: &str) -> Option<&'a mut Table> {
    table.entry(name).or_insert_with(|| Value::Table(Table::new())).as_table_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"two\"\nruntimes.runc = {}";
    const THREE: &str = "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"three\"";

    fn of(files: &[&str], containerd: &str) -> Combined {
        let file =
            |(index, text): (usize, &&str)| File { at: index.to_string(), table: text.parse().unwrap() };
        let files = files.iter().enumerate().map(file).collect();
        combine(files, (!containerd.is_empty()).then(|| containerd.parse().unwrap()))
    }

    fn at<'a>(combined: &'a Combined, path: &[&str]) -> &'a str {
        let value = path.iter().try_fold(&combined.table["plugins"], |value, name| value.get(name));
        value.and_then(Value::as_str).unwrap_or_default()
    }

    fn images(combined: &Combined) -> &str {
        at(combined, &[CRI_THREE, "snapshotter"])
    }

    fn old_images(combined: &Combined) -> &str {
        at(combined, &[CRI_TWO, "containerd", "snapshotter"])
    }

    #[test]
    fn files_of_two_versions_mean_what_the_release_makes_of_them() {
        // Version by which it is read, and the snapshotter in version 3's place and in version 2's.
        for (containerd, files, version, new, old) in [
            // What was given last decides, and nothing is moved.
            ("1.7.35", [TWO, THREE], 3, "three", "two"),
            ("1.6.36", [THREE, TWO], 2, "three", "two"),
            // All is moved, or nothing: with version 3 last, version 2's place stays and is passed over.
            ("2.0.0", [TWO, THREE], 3, "three", "two"),
            ("2.2.9", [TWO, THREE], 3, "three", "two"),
            ("2.0.0", [THREE, TWO], 3, "two", ""),
            ("2.2.9", [THREE, TWO], 3, "two", ""),
            // Each is moved, and the last says the last word.
            ("2.3.5", [TWO, THREE], 4, "three", ""),
            ("2.4.2", [TWO, THREE], 4, "three", ""),
            ("2.3.4", [THREE, TWO], 4, "two", ""),
            ("2.4.2", [THREE, TWO], 4, "two", ""),
        ] {
            let combined = of(&files, containerd);
            let found = (combined.version, images(&combined), old_images(&combined));
            assert_eq!(found, (version, new, old), "{containerd} {files:?}");
            assert_eq!((combined.refused.as_ref(), combined.undecided.len()), (None, 0));
        }
        assert_eq!(of(&[TWO, THREE], "").undecided, [2, 3]);
        assert_eq!(of(&[TWO, TWO, ""], "").undecided, [0; 0]);
    }

    #[test]
    fn some_releases_refuse_imports_of_a_higher_version() {
        for (containerd, files, is_refused) in [
            ("2.2.9", [TWO, THREE], false),
            ("2.3.0", [TWO, THREE], true),
            ("2.3.4", [TWO, THREE], true),
            ("2.3.5", [TWO, THREE], false),
            ("2.3.4", [THREE, TWO], false),
            ("2.3.4", ["", THREE], false),
        ] {
            assert_eq!(of(&files, containerd).refused.is_some(), is_refused, "{containerd} {files:?}");
        }
    }

    #[test]
    fn without_runtimes_beside_it_the_snapshotter_is_not_moved() {
        let lone = "version = 2\nplugins.\"io.containerd.grpc.v1.cri\".containerd.snapshotter = \"lone\"";
        for containerd in ["2.0.0", "2.2.9", "2.3.0", "2.4.2"] {
            let combined = of(&[lone], containerd);
            assert_eq!((images(&combined), combined.left_behind.len()), ("", 1), "{containerd}");
        }
        // Before 2.3 another file may have them.
        let combined = of(&[TWO, lone], "2.2.9");
        assert_eq!((images(&combined), combined.left_behind.len()), ("lone", 0));
        let combined = of(&[TWO, lone], "2.3.0");
        assert_eq!((images(&combined), &combined.left_behind[..]), ("two", &["1".to_owned()][..]));
    }

    #[test]
    fn files_without_a_version_are_of_the_version_that_was_reached() {
        let one = "plugins.cri.containerd = { snapshotter = \"one\", runtimes.runc = {} }";
        // 2.0 to 2.2 rename the plugin and do not move it.
        let combined = of(&[one], "2.2.9");
        assert_eq!((combined.version, images(&combined), old_images(&combined)), (3, "", "one"));
        let combined = of(&[TWO, one], "2.2.9");
        assert_eq!((combined.version, images(&combined)), (3, "one"));
        let combined = of(&[THREE, one], "2.4.2");
        assert_eq!((combined.version, images(&combined)), (4, "one"));
        let bare = THREE.replace("version = 3", "");
        assert_eq!(images(&of(&[&bare], "2.1.0")), "three");
        assert_eq!(of(&[&bare], "1.7.35").version, 1);
        assert_eq!(of(&["", TWO], "1.7.35").version, 2);
        assert_eq!((of(&[""], "").version, of(&["version = 1"], "").version), (1, 1));
    }

    #[test]
    fn plugins_are_replaced_by_1_and_merged_by_2() {
        let first = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"first\"\nruntimes.runc = {}\n\
                     [proxy_plugins.stargz]\ntype = \"snapshot\"\naddress = \"/a\"";
        let second = "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nother = \"\"\n[proxy_plugins.stargz]\naddress = \"/b\"";
        assert_eq!(old_images(&of(&[first, second], "1.7.35")), "");
        assert_eq!(images(&of(&[first, second], "2.2.0")), "first");
        // What is said of a proxy is replaced by all of them.
        for containerd in ["1.6.8", "1.7.35", "2.0.0", "2.4.2"] {
            let combined = of(&[first, second], containerd);
            assert_eq!(combined.table["proxy_plugins"]["stargz"].get("type"), None, "{containerd}");
        }
    }

    #[test]
    fn what_is_no_table_does_no_harm() {
        for text in
            ["plugins = 1", "plugins.\"io.containerd.grpc.v1.cri\" = 1", "plugins.cri.containerd = []"]
        {
            for containerd in ["", "1.7", "2.0", "2.4"] {
                for files in [[text, TWO], [TWO, text]] {
                    assert!(of(&files, containerd).version > 1, "{containerd} {text}");
                }
            }
        }
        let deep = format!("version = 3\nplugins.a.{}b = 1", "c.".repeat(60));
        assert_eq!(of(&[&deep, &deep], "2.4").version, 4);
    }
}
