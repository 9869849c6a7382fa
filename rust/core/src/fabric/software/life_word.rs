//! A word of shared memory that says whether the process of its owner lives, for peers that must know before each copy: to ask
//! the kernel by a pidfd costs 0.35 us, a fifth of a copy of 4 KiB.
//!
//! A thread of the owner holds the word as it would hold a robust futex (`set_robust_list(2)`): however the thread ends, the kernel
//! marks the word then, and only after that may the number of the process be used again. Where the system has no such
//! lists, the word stays 0, and peers ask by the pidfd.
#![allow(unsafe_code, reason = "system calls that take addresses")]

use std::mem::offset_of;
use std::ptr;

use crate::sync::{AtomicU32, Ordering};

/// The kernel's mark: the thread that held the word has ended.
const OWNER_DIED: u32 = 0x4000_0000;

/// Whether the owner of a word lives; `None`: its word does not say.
#[inline]
pub(super) fn lives(word: &AtomicU32) -> Option<bool> {
    // Written by the thread that holds it, and by the kernel when that ends. Nothing else goes with it: Relaxed.
    match word.load(Ordering::Relaxed) {
        0 => None,
        value => Some(value & OWNER_DIED == 0),
    }
}

/// The calling thread holds a word, until this is dropped or the thread ends.
#[derive(Debug)]
pub(super) struct Held<'a> {
    word: &'a AtomicU32,
    /// In a place of its own, for the kernel reads it when the thread ends.
    _list: Box<List>,
    /// What the thread had before.
    former: *const Head,
}

/// An entry of the kernel's list.
#[derive(Debug)]
#[repr(C)]
struct Entry {
    next: *const Self,
}

/// `struct robust_list_head` of the kernel.
#[derive(Debug)]
#[repr(C)]
struct Head {
    list: Entry,
    /// From an entry to its word.
    word_offset: libc::c_long,
    pending: *const Entry,
}

#[derive(Debug)]
#[repr(C)]
struct List {
    head: Head,
    entry: Entry,
}

impl<'a> Held<'a> {
    /// The calling thread takes the word, in memory that it may write to. `None` where the system does not offer it. To be dropped
    /// on the same thread, which holds no robust mutex meanwhile.
    pub(super) fn acquire(word: &'a AtomicU32) -> Option<Self> {
        let (mut former, mut length): (*const Head, libc::size_t) = (ptr::null(), 0);
        // SAFETY: the kernel writes the address and the length of the calling thread's list to the two places.
        let known = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut former, &raw mut length) };
        if known != 0 || length != size_of::<Head>() {
            return None;
        }
        let none = || Entry { next: ptr::null() };
        let mut list = Box::new(List {
            head: Head { list: none(), word_offset: 0, pending: ptr::null() },
            entry: none(),
        });
        let address = &raw const *list as usize;
        list.head.list.next = &raw const list.entry;
        list.entry.next = &raw const list.head.list;
        let entry = address + offset_of!(List, entry);
        list.head.word_offset = (ptr::from_ref(word) as usize).wrapping_sub(entry) as libc::c_long;
        // SAFETY: the list has the kernel's layout, and stays where it is until the former one is set again.
        if !unsafe { set(&raw const list.head) } {
            return None;
        }
        // Behind that: a word that names a thread is always one that the kernel marks.
        word.store(rustix::thread::gettid().as_raw_nonzero().get() as u32, Ordering::Relaxed);
        Some(Self { word, _list: list, former })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.word.store(OWNER_DIED, Ordering::Relaxed);
        // SAFETY: the list that the thread had before, which its library keeps for as long as it lives.
        unsafe { set(self.former) };
    }
}

/// # Safety
/// `head` is a list as the kernel wants it, or null, until another one is set or the thread has ended.
unsafe fn set(head: *const Head) -> bool {
    // SAFETY: by the caller's promise; the kernel reads it when the thread ends.
    unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<Head>()) == 0 }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_word_tells_that_its_thread_has_ended_however_it_did() {
        let orderly = AtomicU32::new(0);
        assert_eq!(lives(&orderly), None);
        let forgotten: &'static AtomicU32 = Box::leak(Box::new(AtomicU32::new(0)));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let held = Held::acquire(&orderly).expect("robust lists");
                assert_eq!(lives(&orderly), Some(true));
                drop(held);
                assert_eq!(lives(&orderly), Some(false));
                // As a thread does that is killed: nothing of it runs any more.
                std::mem::forget(Held::acquire(forgotten).expect("robust lists"));
                assert_eq!(lives(forgotten), Some(true));
            });
        });
        let begun = std::time::Instant::now();
        while lives(forgotten) != Some(false) {
            assert!(begun.elapsed().as_secs() < 10, "the kernel marks the word of a thread that has ended");
            std::thread::yield_now();
        }
    }
}
