//! The guest: memory that it writes to as long as it runs.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha1::{Digest, Sha1};

/// The length of a page, in bytes.
pub(super) const PAGE_LEN: usize = 4096;

/// How often a running guest writes.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// What kind of guest a host has.
#[derive(Clone, Copy, Debug)]
pub struct GuestOptions {
    /// Its memory, in pages of 4 KiB.
    pub pages: usize,
    /// The part of them that it writes to again and again, which is what is left to copy when it is stopped.
    pub working_set: usize,
    /// How many pages it writes to in a second.
    pub dirtied_per_second: u32,
}

impl Default for GuestOptions {
    /// A small one: a suite starts hundreds of them.
    fn default() -> Self {
        Self { pages: 64, working_set: 16, dirtied_per_second: 1600 }
    }
}

/// A handle on the guest's memory, here or on its way.
#[derive(Clone, Debug)]
pub(super) struct Guest(Arc<Mutex<Memory>>);

#[derive(Debug)]
struct Memory {
    bytes: Vec<u8>,
    dirty: Vec<bool>,
    working_set: usize,
    runs: bool,
    /// How often the guest has written: what it writes, so that no two states of the memory are alike.
    writes: u64,
}

/// What a guest's memory holds, in short.
pub(super) type Checksum = [u8; 20];

impl Guest {
    /// A guest that does not run; no page of it has been copied.
    pub(super) fn new(options: GuestOptions) -> Self {
        Self(Arc::new(Mutex::new(Memory {
            bytes: vec![0; options.pages * PAGE_LEN],
            dirty: vec![true; options.pages],
            working_set: options.working_set.min(options.pages),
            runs: false,
            writes: 0,
        })))
    }

    pub(super) fn set_running(&self, runs: bool) {
        self.lock().runs = runs;
    }

    /// What the guest does in some time: it writes to so many pages, if it runs.
    pub(super) fn work(&self, writes: u64) {
        let memory = &mut *self.lock();
        if !memory.runs || memory.working_set == 0 {
            return;
        }
        for _ in 0..writes {
            memory.writes += 1;
            let page = usize::try_from(memory.writes).unwrap_or(0) % memory.working_set;
            memory.bytes[page * PAGE_LEN..][..8].copy_from_slice(&memory.writes.to_le_bytes());
            memory.dirty[page] = true;
        }
    }

    /// All pages have to be copied again: the copy that there was is of no use.
    pub(super) fn mark_all_dirty(&self) {
        self.lock().dirty.fill(true);
    }

    /// Whether nothing is left to copy but what the guest writes to all the time.
    pub(super) fn is_copied_but_for_the_working_set(&self) -> bool {
        let memory = self.lock();
        !memory.dirty[memory.working_set..].contains(&true)
    }

    /// Takes up to `most` pages that have to be copied: each index and content.
    pub(super) fn take_dirty(&self, most: usize, mut take: impl FnMut(u64, &[u8])) {
        let memory = &mut *self.lock();
        // The working set last: what of it is copied early is soon written to again.
        let dirty = (0..memory.dirty.len()).rev().filter(|page| memory.dirty[*page]).take(most).collect::<Vec<_>>();
        for page in dirty {
            memory.dirty[page] = false;
            take(page as u64, &memory.bytes[page * PAGE_LEN..][..PAGE_LEN]);
        }
    }

    /// Puts a copied page in its place; `false` if there is none.
    pub(super) fn put(&self, page: u64, content: &[u8; PAGE_LEN]) -> bool {
        let memory = &mut *self.lock();
        let at = usize::try_from(page).ok().and_then(|page| page.checked_mul(PAGE_LEN));
        let Some(place) = at.and_then(|at| memory.bytes.get_mut(at..)?.get_mut(..PAGE_LEN)) else { return false };
        place.copy_from_slice(content);
        // What the guest wrote last is where it goes on.
        let written = content.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        memory.writes = memory.writes.max(written);
        true
    }

    pub(super) fn checksum(&self) -> Checksum {
        Sha1::digest(&self.lock().bytes).into()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Every change above is whole after each statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
