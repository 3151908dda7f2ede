//! `--platform` and `--base` of commands that pack: which platforms there are, and what lies below the model on each.

use super::CliError;
use crate::{
    base::{BASE_DEFAULT, BaseChoice},
    oci::{ImageSource, OciError, Platform, for_asked_platform},
    pack::PlatformOptions,
};

/// A base, for one platform or for all that have none of their own.
#[derive(Debug, Clone)]
pub(super) struct PlatformBase {
    platform: Option<Platform>,
    base: BaseChoice,
}

/// A base: `BASE` or `OS/ARCH=BASE`.
pub(super) fn base(text: &str) -> Result<PlatformBase, String> {
    let of = |text: &str| text.parse::<BaseChoice>().map_err(|error| error.to_string());
    // Paths may have equals signs; platforms begin with a letter, and names in registries have no equals sign.
    if let Some((before, base)) = text.split_once('=')
        && before.starts_with(|first: char| first.is_ascii_alphanumeric())
        && let Ok(platform) = before.parse()
    {
        return Ok(PlatformBase { platform: Some(platform), base: of(base)? });
    }
    Ok(PlatformBase { platform: None, base: of(text)? })
}

/// Of a `--platform` that may have been given, the one to read an image for. Who asks for one gets no other.
pub(super) fn asked(source: &dyn ImageSource, platform: Option<&Platform>) -> Result<Platform, OciError> {
    if let Some(platform) = platform {
        for_asked_platform(source, source.root_document()?, platform)?;
    }
    Ok(platform.cloned().unwrap_or_default())
}

/// What is packed for which platforms.
pub(super) fn options(
    platforms: &[Platform],
    bases: &[PlatformBase],
) -> Result<Vec<PlatformOptions>, CliError> {
    let usage = |text: String| Err(CliError::Usage(text));
    for (index, platform) in platforms.iter().enumerate() {
        if platform.os != "linux" {
            return usage(format!(
                "--platform {platform}: models are served by containers of Linux, as in linux/amd64"
            ));
        }
        if let Some(before) = platforms.iter().take(index).find(|before| before.is_same_as(platform)) {
            return usage(if before == platform {
                format!("--platform names {platform} twice")
            } else {
                format!("--platform names {before} and {platform}, which are the same to nodes")
            });
        }
    }
    let mut common = None;
    for base in bases.iter().filter(|base| base.platform.is_none()) {
        if common.replace(&base.base).is_some() {
            return usage(
                "--base is given twice; --base OS/ARCH=BASE names one for that platform alone".to_owned(),
            );
        }
    }
    let own = || bases.iter().filter_map(|base| Some((base.platform.as_ref()?, &base.base)));
    for (index, (platform, _)) in own().enumerate() {
        if own().take(index).any(|(before, _)| before.is_same_as(platform)) {
            return usage(format!("--base names two for {platform}"));
        }
        if !platforms.iter().any(|wanted| platform.is_same_as(wanted)) {
            return usage(format!("--base names one for {platform}, which --platform does not"));
        }
    }
    let default: BaseChoice = BASE_DEFAULT.parse()?;
    platforms
        .iter()
        .map(|platform| {
            let own = own().find(|(of, _)| of.is_same_as(platform)).map(|(_, base)| base);
            match own.or(common).or_else(|| bases.is_empty().then_some(&default)) {
                Some(base) => Ok(PlatformOptions { platform: platform.clone(), base: base.clone() }),
                None => Err(CliError::Usage(format!(
                    "{platform} has no base: add --base {platform}=BASE, or one --base for all platforms without"
                ))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(platforms: &[&str], bases: &[&str]) -> Result<Vec<String>, String> {
        let platforms: Vec<Platform> = platforms.iter().map(|text| text.parse().unwrap()).collect();
        let bases: Vec<PlatformBase> = bases.iter().map(|text| base(text).unwrap()).collect();
        let name = |base: &BaseChoice| match base {
            BaseChoice::Scratch => "scratch".to_owned(),
            BaseChoice::Binary(path) => path.display().to_string(),
            BaseChoice::Image(target) => target.to_string(),
        };
        options(&platforms, &bases)
            .map(|options| {
                options.iter().map(|one| format!("{} on {}", one.platform, name(&one.base))).collect()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_platform_has_its_base() {
        let both = ["linux/amd64", "linux/arm64"];
        assert_eq!(of(&both, &[]).unwrap()[1], format!("linux/arm64 on {BASE_DEFAULT}"));
        assert_eq!(
            of(&both, &["scratch", "linux/arm64/v8=./busybox=arm"]).unwrap(),
            ["linux/amd64 on scratch", "linux/arm64 on ./busybox=arm"]
        );
        assert_eq!(of(&both[..1], &["/a=b"]).unwrap(), ["linux/amd64 on /a=b"]);
        assert_eq!(of(&both[..1], &["oci:a/b=c"]).unwrap(), ["linux/amd64 on oci:a/b=c"]);
        assert_eq!(
            of(&both, &["linux/arm64=oci:a:v1", "linux/amd64=b.example.com/c:v1"]).unwrap(),
            ["linux/amd64 on b.example.com/c:v1", "linux/arm64 on oci:a:v1"]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let both = ["linux/amd64", "linux/arm64"];
        for (platforms, bases, word) in [
            (&["linux/amd64", "linux/amd64"][..], &[][..], "linux/amd64 twice"),
            (&["linux/arm64", "linux/arm64/v8"], &[], "the same to nodes"),
            (&["linux/amd64", "windows/amd64"], &[], "--platform windows/amd64: models"),
            (&both, &["linux/arm64=scratch"], "linux/amd64 has no base"),
            (&both, &["scratch", "/bin/busybox"], "--base is given twice"),
            (&both, &["linux/arm64=scratch", "linux/arm64=/b"], "two for linux/arm64"),
            (&both[..1], &["scratch", "linux/arm64=/b"], "which --platform does not"),
        ] {
            let error = of(platforms, bases).unwrap_err();
            assert!(error.contains(word), "{error} lacks {word}");
        }
        assert!(base("linux/arm64=").is_err());
    }
}
