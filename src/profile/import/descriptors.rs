//! Which file a descriptor of a process stands for, and how far it was read. Roughly: a log may lack calls, and
//! descriptors that are not known begin at 0. Must not know what lines of a log look like.

use std::{cell::Cell, collections::HashMap, rc::Rc};

use crate::profile::Tree;

/// Descriptors that are remembered; with more all are forgotten, and begin at 0 again.
const DESCRIPTORS_MAX: usize = 100_000;

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct File {
    pub(super) tree: Tree,
    pub(super) path: String,
}

/// An open file; duplicates and children share it.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) file: File,
    pub(super) position: Cell<u64>,
}

impl Open {
    fn new(file: File) -> Rc<Self> {
        Rc::new(Self { file, position: Cell::new(0) })
    }
}

/// The tables of all processes. A thread has its process's table where the log shows how it came to be.
#[derive(Default)]
pub(super) struct Descriptors {
    /// The table of a thread, where that is not its own.
    shared: HashMap<u64, u64>,
    tables: HashMap<u64, HashMap<u64, Rc<Open>>>,
    /// The last opener of a file under a number: whose thread it is may not be known.
    latest: HashMap<(u64, File), Rc<Open>>,
    held: usize,
}

impl Descriptors {
    fn table(&self, pid: u64) -> u64 {
        self.shared.get(&pid).copied().unwrap_or(pid)
    }

    fn insert(&mut self, table: u64, number: u64, open: Rc<Open>) {
        if self.held >= DESCRIPTORS_MAX || self.shared.len() >= DESCRIPTORS_MAX {
            *self = Self::default();
        }
        self.held += usize::from(self.tables.entry(table).or_default().insert(number, open).is_none());
    }

    /// A file was opened.
    pub(super) fn open(&mut self, pid: u64, number: u64, file: File) -> Rc<Open> {
        let open = Open::new(file.clone());
        self.insert(self.table(pid), number, Rc::clone(&open));
        if self.latest.len() >= DESCRIPTORS_MAX {
            self.latest.clear();
        }
        self.latest.insert((number, file), Rc::clone(&open));
        open
    }

    /// The open file behind a number. `file` is what the log says that it is, if it does.
    pub(super) fn find(&mut self, pid: u64, number: u64, file: Option<File>) -> Option<Rc<Open>> {
        let known = self.tables.get(&self.table(pid)).and_then(|table| table.get(&number));
        let Some(file) = file else { return known.map(Rc::clone) };
        if let Some(known) = known.filter(|open| open.file == file) {
            return Some(Rc::clone(known));
        }
        let key = (number, file);
        let open = self.latest.get(&key).map(Rc::clone);
        let open = open.unwrap_or_else(|| Open::new(key.1));
        self.insert(self.table(pid), number, Rc::clone(&open));
        Some(open)
    }

    /// A number stands for nothing any more, or for a file that does not matter.
    pub(super) fn close(&mut self, pid: u64, number: u64) {
        let table = self.table(pid);
        if let Some(open) = self.tables.get_mut(&table).and_then(|table| table.remove(&number)) {
            self.held -= 1;
            self.latest.remove(&(number, open.file.clone()));
        }
    }

    /// `copy` became another number for what `number` stands for.
    pub(super) fn duplicate(&mut self, pid: u64, number: u64, copy: u64) {
        self.close(pid, copy);
        let table = self.table(pid);
        if let Some(open) = self.tables.get(&table).and_then(|table| table.get(&number)).map(Rc::clone) {
            self.insert(table, copy, open);
        }
    }

    /// `child` was started by `parent`; `shares` says whether as a thread.
    pub(super) fn start(&mut self, parent: u64, child: u64, shares: bool) {
        let table = self.table(parent);
        if shares {
            // The child may have been seen before its parent's call returned.
            let own = self.tables.remove(&child).unwrap_or_default();
            self.held -= own.len();
            for (number, open) in own {
                self.insert(table, number, open);
            }
            if table != child && self.shared.len() < DESCRIPTORS_MAX {
                self.shared.insert(child, table);
            }
        } else {
            let known: Vec<_> =
                self.tables.get(&table).into_iter().flatten().map(|(n, o)| (*n, Rc::clone(o))).collect();
            for (number, open) in known {
                if self.tables.get(&child).is_none_or(|table| !table.contains_key(&number)) {
                    self.insert(child, number, open);
                }
            }
        }
    }

    /// A thread ended.
    pub(super) fn exit(&mut self, pid: u64) {
        if self.shared.remove(&pid).is_none() {
            self.held -= self.tables.remove(&pid).map_or(0, |table| table.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_positions_and_processes_do_not() {
        let file = File { tree: Tree::Model, path: "a".to_owned() };
        let mut all = Descriptors::default();
        let read = |all: &mut Descriptors, pid, number, file| {
            let open = all.find(pid, number, file)?;
            open.position.set(open.position.get() + 1);
            Some(open.position.get())
        };
        all.open(1, 3, file.clone());
        all.start(1, 2, true);
        assert_eq!(read(&mut all, 1, 3, None), Some(1));
        assert_eq!(read(&mut all, 2, 3, None), Some(2));
        all.duplicate(2, 3, 4);
        assert_eq!(read(&mut all, 1, 4, None), Some(3));
        all.start(1, 5, false);
        assert_eq!(read(&mut all, 5, 3, None), Some(4));
        all.open(5, 3, file.clone());
        assert_eq!(read(&mut all, 5, 3, None), Some(1));
        assert_eq!(read(&mut all, 1, 3, None), Some(5));
        all.close(1, 3);
        assert_eq!(read(&mut all, 2, 3, None), None);
        // A thread whose beginning is not in the log.
        assert_eq!(read(&mut all, 77, 3, Some(file.clone())), Some(1));
        all.exit(5);
        all.exit(1);
        all.exit(77);
        assert_eq!(all.held, 0);
        for number in 0..=DESCRIPTORS_MAX as u64 {
            all.open(1, number, file.clone());
        }
        assert!(all.held <= DESCRIPTORS_MAX);
    }
}
