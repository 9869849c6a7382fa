//! The generation of a process in its line of forks.
#![allow(unsafe_code, reason = "maps a page that the kernel clears in children")]

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::{loading, own_socket};

/// The number of a process in its line of forks: a child's is higher than that of its parent.
///
/// A child of `vfork` shares the parent's memory and generation: it must only exec or exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessGeneration(u32);

/// Pointer to the number of this process, in a page that the kernel clears in a child before it runs. 0 until the
/// child needs a number. Stored once, by the thread that maps the page (Release); read by all (Acquire).
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const UNSET).cast_mut());

/// Target of [`WORD`] before the page is mapped; stays 0.
static UNSET: AtomicU32 = AtomicU32::new(0);

/// Target of [`WORD`] on kernels that clear no pages (before 4.14): the fork handler clears it.
static WITHOUT_PAGE: AtomicU32 = AtomicU32::new(0);

/// The highest number in use in this line of forks. Raised before the number is used, so that a child forked in
/// between does not get it again; only its value matters: Relaxed.
static HIGHEST: AtomicU32 = AtomicU32::new(0);

impl ProcessGeneration {
    /// The generation of this process. Two loads; a system call only the first time.
    #[inline(always)]
    pub fn current() -> Self {
        let number = word().load(Ordering::Relaxed);
        if number == 0 { Self::begin() } else { Self(number) }
    }

    /// Whether it is the generation of this process.
    #[inline(always)]
    pub fn is_current(self) -> bool {
        // 0 in a child that has no number yet, which no generation has.
        word().load(Ordering::Relaxed) == self.0
    }

    /// The number itself.
    pub fn number(self) -> u32 {
        self.0
    }

    #[cold]
    #[inline(never)]
    fn begin() -> Self {
        ensure_word();
        let next = HIGHEST.fetch_add(1, Ordering::Relaxed) + 1;
        match word().compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Self(next),
            Err(other_threads) => Self(other_threads),
        }
    }
}

#[inline(always)]
fn word() -> &'static AtomicU32 {
    // SAFETY: it points to a static, or to a page that is never unmapped once stored.
    unsafe { &*WORD.load(Ordering::Acquire) }
}

/// Maps the page, once in a line of forks.
fn ensure_word() {
    let unset = (&raw const UNSET).cast_mut();
    if WORD.load(Ordering::Acquire) != unset {
        return;
    }
    // SAFETY: the handler does nothing that is not allowed in the child of a process with threads. Registering twice
    // is harmless.
    let refused = unsafe {
        libc::pthread_atfork(Some(loading::before_fork), Some(loading::after_fork), Some(in_child))
    };
    if refused != 0 {
        tracing::warn!(
            "cannot register fork handlers (pthread_atfork: error {refused}): forked children keep the sockets of engines open"
        );
    }
    let page = map_cleared_in_children();
    let made = page.map_or_else(|| (&raw const WITHOUT_PAGE).cast_mut(), NonNull::as_ptr);
    let is_first = WORD.compare_exchange(unset, made, Ordering::AcqRel, Ordering::Acquire).is_ok();
    if let (false, Some(page)) = (is_first, page) {
        // SAFETY: mapped here, and nothing has seen it.
        let _ = unsafe { munmap(page.as_ptr().cast(), size_of::<AtomicU32>()) };
    }
}

fn map_cleared_in_children() -> Option<NonNull<AtomicU32>> {
    let size = size_of::<AtomicU32>();
    // SAFETY: an anonymous mapping at an address that the kernel chooses overlaps nothing.
    let page = unsafe {
        mmap_anonymous(ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    };
    let page = NonNull::new(page.ok()?)?;
    // SAFETY: mapped here; the advice changes nothing in this process.
    if unsafe { madvise(page.as_ptr(), size, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: as above, and nothing has seen it.
        let _ = unsafe { munmap(page.as_ptr(), size) };
        return None;
    }
    Some(page.cast())
}

/// Runs in each child of `fork`, before `fork` returns there: takes no lock and allocates nothing.
extern "C" fn in_child() {
    word().store(0, Ordering::Relaxed);
    loading::renew_in_child();
    own_socket::close_inherited();
}
