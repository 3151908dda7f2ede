//! How a registry takes blobs, as far as is known: learnt from its answers, for as long as the process lives. Must not
//! perform requests.

use super::super::limits::known_registry;

/// Length in bytes of the pieces that are tried first on a registry that refuses whole blobs: below the body limits
/// that proxies are usually given.
const PIECE_DEFAULT: u64 = 64 << 20;
/// Shortest pieces in bytes that are tried. nginx refuses bodies over 1 MiB where nobody told it otherwise; below this, a
/// blob would take more requests than anybody meant.
const PIECE_MIN: u64 = 64 << 10;
/// Uploads that a registry may lose before smaller requests are tried.
const LOST_MAX: u32 = 2;

/// How a blob is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) enum Strategy {
    /// In one request.
    Whole,
    /// In pieces of at most so many bytes.
    Pieces(u64),
}

/// What is known of a registry.
#[derive(Debug)]
pub(in crate::registry) struct Habits {
    strategy: Strategy,
    /// Whether it is settled that pieces do not work.
    no_pieces: bool,
    /// Longest pieces in bytes that are known to go.
    piece_max: u64,
    /// Pieces but the last must not be shorter, in bytes (`OCI-Chunk-Min-Length`).
    piece_min: u64,
    lost: u32,
}

impl Habits {
    /// Nothing is learnt yet of the registry at `host`; `piece` is what the user wants.
    pub(in crate::registry) fn new(piece: Option<u64>, host: &str) -> Self {
        let known = known_registry(host);
        Self {
            strategy: piece.map_or(Strategy::Whole, |piece| Strategy::Pieces(piece.max(1))),
            no_pieces: known.is_some_and(|known| known.whole_only),
            piece_max: known.and_then(|known| known.piece_max).unwrap_or(u64::MAX),
            piece_min: known.and_then(|known| known.piece_min).unwrap_or_default(),
            lost: 0,
        }
    }

    /// How the next request sends.
    pub(in crate::registry) fn strategy(&self) -> Strategy {
        match self.strategy {
            Strategy::Whole => Strategy::Whole,
            Strategy::Pieces(length) => Strategy::Pieces(length.min(self.piece_max).max(self.piece_min)),
        }
    }

    /// The registry says how short pieces may be.
    pub(in crate::registry) fn learn_min(&mut self, bytes: u64) {
        self.piece_min = self.piece_min.max(bytes);
    }

    /// The shortest pieces that the registry takes, in bytes; 0 when it did not say.
    pub(in crate::registry) fn piece_min(&self) -> u64 {
        self.piece_min
    }

    /// A request with a body of `length` bytes, sent in the way of `used`, was refused for its length. Returns whether
    /// there is another way; there is when another blob's request found one meanwhile.
    pub(in crate::registry) fn too_long(&mut self, used: Strategy, length: u64) -> bool {
        if used != self.strategy() {
            return true;
        }
        let smaller = match self.strategy {
            Strategy::Whole if self.no_pieces => return false,
            Strategy::Whole => PIECE_DEFAULT,
            Strategy::Pieces(now) => now.min(length) / 2,
        };
        if smaller < PIECE_MIN.max(self.piece_min) {
            return false;
        }
        self.strategy = Strategy::Pieces(smaller);
        true
    }

    /// The registry does not take whole blobs. Returns whether there is another way.
    fn no_whole(&mut self) -> bool {
        if self.strategy != Strategy::Whole || self.no_pieces {
            return false;
        }
        self.strategy = Strategy::Pieces(PIECE_DEFAULT);
        true
    }

    /// The registry does not take pieces. Returns whether there is another way.
    fn no_pieces(&mut self) -> bool {
        if self.strategy == Strategy::Whole {
            return false;
        }
        self.no_pieces = true;
        self.strategy = Strategy::Whole;
        true
    }

    /// The registry lost an upload that had begun in the way of `used`. Something before it may end long requests.
    pub(in crate::registry) fn lost(&mut self, used: Strategy) {
        if used != self.strategy() {
            return;
        }
        self.lost += 1;
        if self.lost >= LOST_MAX {
            self.no_whole();
        }
    }

    /// A request, sent in the way of `used`, was refused as one that the registry does not know or understand. Returns
    /// whether there is another way, which for whole blobs there is only before any byte was kept (`at_start`).
    pub(in crate::registry) fn other_way(&mut self, used: Strategy, at_start: bool) -> bool {
        if used != self.strategy() {
            return true;
        }
        match self.strategy {
            Strategy::Whole => at_start && self.no_whole(),
            Strategy::Pieces(_) => self.no_pieces(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_lengths_are_halved_to_an_end() {
        let mut habits = Habits::new(None, "h");
        assert_eq!(habits.strategy(), Strategy::Whole);
        let too_long = |habits: &mut Habits, length| habits.too_long(habits.strategy(), length);
        assert!(too_long(&mut habits, 10 << 30));
        assert_eq!(habits.strategy(), Strategy::Pieces(64 << 20));
        for length in [32, 16, 8, 4, 2, 1] {
            assert!(too_long(&mut habits, length << 21));
            assert_eq!(habits.strategy(), Strategy::Pieces(length << 20));
        }
        for length in [512, 256, 128] {
            assert!(too_long(&mut habits, length << 11));
        }
        assert!(too_long(&mut habits, 128 << 10));
        assert!(!too_long(&mut habits, 64 << 10));
    }

    #[test]
    fn the_registrys_minimum_is_kept() {
        let mut habits = Habits::new(Some(1 << 20), "h");
        habits.learn_min(5 << 20);
        assert_eq!(habits.strategy(), Strategy::Pieces(5 << 20));
        assert!(!habits.too_long(habits.strategy(), 5 << 20));
    }

    #[test]
    fn each_way_is_left_once() {
        let mut habits = Habits::new(None, "h");
        assert!(!habits.no_pieces());
        assert!(habits.no_whole());
        assert!(habits.no_pieces());
        assert_eq!(habits.strategy(), Strategy::Whole);
        assert!(!habits.no_whole() && !habits.too_long(Strategy::Whole, 1 << 30));
    }

    #[test]
    fn what_is_known_counts() {
        let habits = Habits::new(Some(1 << 30), "ghcr.io");
        assert_eq!(habits.strategy(), Strategy::Pieces(4 << 20));
        let mut habits = Habits::new(None, "europe-docker.pkg.dev");
        assert!(!habits.too_long(Strategy::Whole, 1 << 30) && !habits.no_whole());
    }

    #[test]
    fn lost_uploads_lead_to_pieces() {
        let mut habits = Habits::new(None, "h");
        habits.lost(Strategy::Whole);
        assert_eq!(habits.strategy(), Strategy::Whole);
        habits.lost(Strategy::Whole);
        assert_eq!(habits.strategy(), Strategy::Pieces(PIECE_DEFAULT));
    }

    #[test]
    fn what_another_request_found_is_tried_first() {
        // Many blobs are refused at once: one of them changes the way, the others follow.
        let mut habits = Habits::new(None, "h");
        for _ in 0..12 {
            assert!(habits.too_long(Strategy::Whole, 10 << 30));
            assert!(habits.other_way(Strategy::Whole, true));
            habits.lost(Strategy::Whole);
        }
        assert_eq!(habits.strategy(), Strategy::Pieces(PIECE_DEFAULT));
    }
}
