//! Makes a container image of starcar itself; docs/container-image.md says how and why.
//!
//! ```text
//! cargo run --release --example container_image -- starcar --busybox /bin/busybox \
//!     --ca-certificates /etc/ssl/certs/ca-certificates.crt -o starcar-image -t v1
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "container-image/image.rs"]
mod image;

use std::{path::PathBuf, process::ExitCode, thread};

use clap::Parser;
use image::{ImageOptions, write_image};
use starcar::oci::Platform;

/// Make a reproducible container image of starcar
#[derive(Debug, Parser)]
struct Arguments {
    /// The static executable
    program: PathBuf,
    /// A static busybox, for the shell that pipelines run
    #[arg(long, value_name = "FILE")]
    busybox: Option<PathBuf>,
    /// Authorities to trust, as PEM
    #[arg(long, value_name = "FILE")]
    ca_certificates: Option<PathBuf>,
    /// Platform of the executables
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64")]
    platform: Platform,
    /// Commit that the program was built from
    #[arg(long)]
    revision: Option<String>,
    /// Where its source code is
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// Time that the image and its files bear, seconds since 1970
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", default_value_t = 0)]
    timestamp: i64,
    /// Directory of the OCI layout
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Tag in the layout
    #[arg(short, long, default_value = "latest")]
    tag: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = ImageOptions {
        program: arguments.program,
        busybox: arguments.busybox,
        certificates: arguments.ca_certificates,
        platform: arguments.platform,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: arguments.revision,
        source: arguments.source,
        modified: arguments.timestamp,
        threads: thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    match write_image(&options, &arguments.output, &arguments.tag) {
        Ok(digest) => {
            println!("{digest}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
