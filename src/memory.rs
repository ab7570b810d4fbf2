//! Memory asked for before it is needed.
//!
//! A line that is in no cache takes as long as a thousand instructions; asked for early, it comes while they run.

use prefetch_index::prefetch_index;

/// Bytes of a line of the cache.
pub(crate) const LINE: usize = 64;

/// Asks for the memory of so many elements from the first of `from` on, which need not all be of it: nothing is read.
///
/// One line more may be asked for than they lie in.
#[inline]
pub(crate) fn prefetch<T>(from: &[T], count: usize) {
    for at in (0..count).step_by(LINE.checked_div(size_of::<T>()).unwrap_or_default().max(1)) {
        prefetch_index(from, at);
    }
    prefetch_index(from, count.saturating_sub(1));
}

/// Memory that is going to be needed bit by bit, asked for in larger parts.
///
/// glibc has all threads but the first take it from the system page by page, a call each, for which every other thread that
/// needs memory waits. What was taken in one part and is free again is there for the next small ones.
#[derive(Debug)]
pub(crate) struct Growth {
    end: usize,
    asked_for: usize,
}

impl Growth {
    /// Bytes asked for at once. A little more, and glibc would give them back to the system each time.
    const BYTES: usize = 112 << 10;

    /// In the end so many bytes will be needed, and about as much again beside them. Few are not worth it.
    pub(crate) fn to(end: usize) -> Growth {
        let is_glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
        Growth { end, asked_for: if is_glibc { 0 } else { end } }
    }

    /// So many of them are needed now.
    #[inline]
    pub(crate) fn reach(&mut self, bytes: usize) {
        let next = self.asked_for.saturating_add(Growth::BYTES / 2);
        if bytes >= self.asked_for && next <= self.end {
            self.asked_for = next;
            Growth::ask();
        }
    }

    #[cold]
    fn ask() {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(Growth::BYTES)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_a_block_is_asked_for_in_few_parts_and_none_of_it_is_kept() {
        for (end, parts) in [(0, 0), (50_000, 0), (256 << 10, 4), (1_000_000, 17)] {
            let mut growth = Growth::to(end);
            let used = allocation_counter::measure(|| (0..end).step_by(100).for_each(|at| growth.reach(at)));
            let parts = if cfg!(all(target_os = "linux", target_env = "gnu")) { parts } else { 0 };
            assert_eq!((used.count_total, used.bytes_current), (parts, 0), "{end}");
            assert!(used.bytes_max < 128 << 10, "glibc maps as many apart");
        }
    }
}
