//! A base from an image: pulls its layers, checks them, unpacks them into temporary files and lists their
//! entries.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, Write},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use super::{Base, BaseError, BaseLayer, tar_entries};
use crate::{
    blob::Spool,
    digest::Digest,
    oci::{ImageSource, Platform, digest_of, read_image},
};

/// Largest unpacked layer, in bytes: a base is small, and a bomb is not.
const UNPACKED_MAX: u64 = 32 << 30;

pub(super) fn base(source: &dyn ImageSource, platform: &Platform, spool: &Spool) -> Result<Base, BaseError> {
    let image = read_image(source, platform)?;
    let stated = Platform::of_config(&image.config);
    if (&stated.os, &stated.architecture) != (&platform.os, &platform.architecture) {
        return Err(BaseError::Platform { stated: stated.to_string(), wanted: platform.to_string() });
    }
    let diff_ids = image.config.rootfs().diff_ids();
    let history = image.config.history().clone().unwrap_or_default();
    let mut steps = history.iter().filter(|step| !step.empty_layer().unwrap_or(false));
    let mut layers = Vec::new();
    for (index, descriptor) in image.manifest.layers().iter().enumerate() {
        let layer = digest_of(descriptor, &source.place())?;
        let mut packed = spool.temporary_file().map_err(BaseError::Spool)?;
        source.copy_blob(layer, descriptor.size(), &mut packed)?;
        let unusable = |reason: String| BaseError::Layer { layer, reason };
        let (stream, diff_id) = unpack(packed, spool).map_err(|error| unusable(error.to_string()))?;
        if diff_ids.get(index).is_some_and(|stated| *stated != diff_id.to_string()) {
            return Err(unusable(format!(
                "its content has digest {diff_id}, the config says {}",
                diff_ids[index]
            )));
        }
        let entries = tar_entries::read(&stream).map_err(unusable)?;
        let created_by = steps.next().and_then(|step| step.created_by().clone());
        let created_by = created_by.unwrap_or_else(|| format!("base layer {layer}"));
        layers.push(BaseLayer { entries, created_by });
    }
    let environment =
        image.config.config().as_ref().and_then(|config| config.env().clone()).unwrap_or_default();
    Ok(Base { layers, environment, name: Some(source.place()), digest: Some(image.digest) })
}

/// Unpacks a layer, whatever it is compressed with, into a file of its own; returns that and its digest.
fn unpack(mut packed: File, spool: &Spool) -> io::Result<(Arc<File>, Digest)> {
    packed.rewind()?;
    let mut magic = [0; 4];
    let known = packed.read(&mut magic)?;
    packed.rewind()?;
    let packed = BufReader::new(packed);
    // The media type says the same, but not every builder states it truly.
    let mut content: Box<dyn Read> = match &magic[..known] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(packed)?),
        _ => Box::new(packed),
    };
    let mut stream = spool.temporary_file()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let count = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        size += count as u64;
        if size > UNPACKED_MAX {
            return Err(io::Error::other(format!("it unpacks to more than {UNPACKED_MAX} bytes")));
        }
        hash.update(&buffer[..count]);
        stream.write_all(&buffer[..count])?;
    }
    Ok((Arc::new(stream), Digest::finish(hash)))
}
