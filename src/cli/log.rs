//! What the library logs, as words on standard error: warnings always, requests with `-v`. Never shows what other
//! crates log: nobody vouches for there being no secrets in it.

use std::{
    fmt::{Debug, Write as _},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use indicatif::ProgressBar;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

use super::output;

/// The bar that words must not be written into.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);
/// Whether nothing but errors is wanted.
static QUIET: AtomicBool = AtomicBool::new(false);

struct Words {
    most: Level,
}

/// Begins to show what the library logs. `verbose` is how often `-v` was given.
pub(super) fn begin(verbose: u8) {
    let most = match verbose {
        0 => Level::WARN,
        1 => Level::INFO,
        _ => Level::DEBUG,
    };
    // A program that uses the library may have its own already.
    let _ = tracing_subscriber::registry().with(Words { most }).try_init();
}

/// Keeps words and the bar apart.
pub(super) fn beside(bar: &ProgressBar, quiet: bool) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
    QUIET.store(quiet, Ordering::Relaxed);
}

impl<S: Subscriber> Layer<S> for Words {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= self.most && metadata.target().starts_with("starcar")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.most))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let mut text = Text::default();
        event.record(&mut text);
        let say = || match level {
            Level::ERROR | Level::WARN => output::warning(&text.0),
            _ => output::words(&text.0),
        };
        if level == Level::WARN && QUIET.load(Ordering::Relaxed) {
            return;
        }
        match BAR.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }
}

/// An event's message, and its fields behind it.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
