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
