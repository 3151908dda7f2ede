//! `starcar digest-cache`, where the cache of layers' digests lies, and how `pack` uses it. Must not know what it keeps.

use std::{env, ffi::OsString, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::{CliError, output, parse, registry_arguments::cache_directory};
use crate::{
    digest_cache::{DigestCache, LIMIT_DEFAULT, Usage},
    pack::PackOptions,
};

/// Names another directory; empty means that nothing is kept.
const DIRECTORY: &str = "STARCAR_DIGEST_CACHE";
/// Most bytes that the cache takes.
const LIMIT: &str = "STARCAR_DIGEST_CACHE_LIMIT";

const ENVIRONMENT: &str = "\
STARCAR_DIGEST_CACHE is the directory (default: starcar/layers in $XDG_CACHE_HOME or ~/.cache; empty: keep nothing), \
STARCAR_DIGEST_CACHE_LIMIT the most bytes that it takes (default: 1GiB).";

/// How `pack` uses the cache.
#[derive(Debug, Args)]
pub(super) struct DigestCacheUse {
    /// Read all files, even those of layers that are known from an earlier pack, and look at layers that the output has
    /// already
    #[arg(long)]
    verify_sources: bool,
    /// Neither use nor keep what is known of layers from one pack to the next (see `starcar help digest-cache`)
    #[arg(long)]
    no_digest_cache: bool,
}

impl DigestCacheUse {
    /// Sets what the arguments and the environment say.
    pub(super) fn apply(&self, options: &mut PackOptions) -> Result<(), CliError> {
        options.verify_sources = self.verify_sources;
        options.digest_cache = if self.no_digest_cache { None } else { cache()? };
        Ok(())
    }
}

/// Show or clear what is kept of layers from one pack to the next
///
/// Packing files again that did not change reads none of them: the digests of their layers are kept, and what the layers
/// are made of besides the files.
#[derive(Debug, Args)]
#[command(after_help = ENVIRONMENT)]
pub(super) struct DigestCacheArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show where the cache lies, how many layers it knows and how many bytes it takes
    Info {
        /// How it is printed
        #[arg(long, value_enum, default_value_t = FormatArgument::Text)]
        format: FormatArgument,
    },
    /// Forget all layers
    Clear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Text,
    Json,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    path: Option<PathBuf>,
    #[serde(flatten)]
    usage: Usage,
    limit: u64,
}

pub(super) fn run(arguments: &DigestCacheArguments) -> Result<(), CliError> {
    let cache = cache()?;
    let failed = |cache: &DigestCache| {
        let what = format!("the digest cache in {}", cache.directory().display());
        move |cause| CliError::DigestCache { what, cause }
    };
    match arguments.command {
        Command::Info { format } => {
            let usage = cache.as_ref().map(|cache| cache.usage().map_err(failed(cache))).transpose()?;
            let info = Info {
                path: cache.as_ref().map(|cache| cache.directory().to_owned()),
                usage: usage.unwrap_or_default(),
                limit: cache.as_ref().map_or(0, DigestCache::limit),
            };
            if format == FormatArgument::Json { output::json(&info) } else { output::data(&text(&info)) }
        }
        Command::Clear => {
            let freed = cache.as_ref().map(|cache| cache.clear().map_err(failed(cache))).transpose()?;
            let freed = freed.unwrap_or_default();
            let layers = output::count(freed.entries, "layer");
            output::data(&format!("forgot {layers}, freed {}", output::size(freed.bytes)))
        }
    }
}

fn text(info: &Info) -> String {
    let path = info.path.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    let rows = [
        ("path", path),
        ("layers", info.usage.entries.to_string()),
        ("size", output::size(info.usage.bytes)),
        ("limit", output::size(info.limit)),
    ];
    output::table(&rows.map(|(name, value)| vec![name.to_owned(), value]))
}

/// The cache that the environment names; `None` when there is none.
fn cache() -> Result<Option<DigestCache>, CliError> {
    let limit = match env::var(LIMIT) {
        Ok(text) if !text.is_empty() => {
            parse::bytes(&text).map_err(|reason| CliError::Usage(format!("{LIMIT}: {reason}")))?
        }
        _ => LIMIT_DEFAULT,
    };
    let directory = directory(env::var_os);
    Ok(directory.map(|directory| DigestCache::new(directory, limit)))
}

fn directory(variable: impl Fn(&'static str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(named) = variable(DIRECTORY) {
        return Some(PathBuf::from(named)).filter(|path| !path.as_os_str().is_empty());
    }
    Some(cache_directory(variable)?.join("layers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_wins() {
        let of = |variables: &[(&str, &str)]| {
            let value =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
            directory(|name| value(name).map(OsString::from))
        };
        let (named, xdg, home) = ((DIRECTORY, "c"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h"));
        assert_eq!(of(&[named, xdg, home]), Some("c".into()));
        assert_eq!(of(&[xdg, home]), Some("/x/starcar/layers".into()));
        assert_eq!(of(&[("XDG_CACHE_HOME", "x"), home]), Some("/h/.cache/starcar/layers".into()));
        assert_eq!(of(&[(DIRECTORY, ""), xdg, home]), None);
        assert_eq!(of(&[]), None);
    }
}
