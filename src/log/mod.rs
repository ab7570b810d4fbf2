//! The log of an opened store: the ring's bytes, appended to files and synced.
//!
//! | module | what |
//! |---|---|
//! | `group` | many writers, one write, one sync |
//! | `writer` | segments being written: preallocated, rotated, sealed |
//! | `place` | the directory that is locked, should its path come to lead elsewhere |
//! | `reader` | segments being read, frame by frame, up to where the sound ones end |
//! | `verdict` | torn tail or rot |
//!
//! Promise: what was reported as synced is on disk, in order and without holes, and a failure is never followed by
//! another write.

mod group;
mod place;
mod reader;
#[cfg(test)]
mod table_walk;
mod verdict;
mod writer;

/// What `group` locks with. Its tests under a model checker put that checker's own here.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
}

pub(crate) use group::{Goal, Group, Reached};
pub(crate) use place::Place;
pub(crate) use reader::{Ending, SegmentReader};
pub(crate) use verdict::{Found, Later, Verdict, judge};
pub(crate) use writer::{LogWriter, SegmentEnd, Stamps, TornTail};

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;

    use super::group::Sink;
    use super::*;

    /// Keeps all that it is given.
    #[derive(Default)]
    struct Kept {
        bytes: Vec<u8>,
        marks: Vec<(usize, u64)>,
        capacity: usize,
    }

    impl Sink for Kept {
        type Mark = u64;
        type Error = &'static str;

        fn write(
            &mut self,
            buffers: &[Vec<u8>],
            marks: Vec<(usize, u64)>,
            _: u64,
            _: Goal,
        ) -> Result<(), &'static str> {
            let before = self.bytes.len();
            self.marks.extend(marks.into_iter().map(|(at, mark)| (before + at, mark)));
            self.bytes.extend(buffers.iter().flatten());
            self.capacity = buffers.iter().map(Vec::capacity).sum();
            Ok(())
        }

        fn sync(&mut self) -> Result<(), &'static str> {
            Ok(())
        }

        fn panicked() -> &'static str {
            "panicked"
        }
    }

    #[test]
    fn frames_and_marks_of_any_size_arrive_as_they_were_appended() {
        let mut random = fastrand::Rng::with_seed(5);
        let group = Group::new(Kept::default(), 0);
        let (mut bytes, mut marks) = (Vec::new(), Vec::new());
        for seq in 1..=2_000 {
            let most = [10, 300, 40_000, 1_500_000][[0, 1, 1, 1, 1, 2, 2, 3][random.usize(0..8)]];
            // Rather few of the largest.
            let len = if most > 1_000_000 && random.u8(0..8) > 0 { 7 } else { random.usize(1..most) };
            let frame: Vec<u8> = (0..len).map(|n| (n as u64 ^ seq) as u8).collect();
            bytes.extend_from_slice(&frame);
            let is_marked = random.bool();
            group.append(seq, &frame, || is_marked.then_some(seq)).unwrap();
            if is_marked {
                marks.push((bytes.len(), seq));
            }
            if random.u8(0..30) == 0 {
                group.reach(seq, if random.bool() { Goal::Written } else { Goal::Synced }).unwrap();
            }
        }
        group.reach(2_000, Goal::Synced).unwrap();
        let kept = group.end("ended").unwrap();
        assert!(kept.bytes == bytes);
        assert_eq!(kept.marks, marks);
    }

    /// The longest pauses of a writer were those in which it moved megabytes that others had appended.
    #[test]
    fn a_commit_moves_nothing_of_what_has_gathered_and_takes_little_memory() {
        let group = Group::new(Kept::default(), 0);
        for (seq, len) in (1..).zip(repeat_n(100, 80_000).chain([3_000_000, 100, 100])) {
            let frame = vec![1; len];
            let used = allocation_counter::measure(|| drop(group.append(seq, &frame, || None)));
            assert!(used.bytes_max <= (len as u64).max(512 << 10) + (16 << 10), "{seq}: {used:?}");
        }
        group.reach(80_003, Goal::Written).unwrap();
        let kept = group.end("ended").unwrap();
        let all = kept.bytes.len();
        assert!(kept.capacity < all + (1 << 20), "{} bytes for {all}", kept.capacity);
    }

    #[test]
    fn the_memory_that_much_at_once_had_needed_is_given_back() {
        /// Takes all, keeps nothing.
        struct Nowhere;

        impl Sink for Nowhere {
            type Mark = ();
            type Error = ();

            fn write(&mut self, _: &[Vec<u8>], _: Vec<(usize, ())>, _: u64, _: Goal) -> Result<(), ()> {
                Ok(())
            }

            fn sync(&mut self) -> Result<(), ()> {
                Ok(())
            }

            fn panicked() {}
        }

        let group = Group::new(Nowhere, 0);
        let mut seq = 0;
        // One large commit, and very many small ones.
        for (commits, bytes) in [(1, 20 << 20), (200_000, 100)] {
            let frame = vec![1; bytes];
            let used = allocation_counter::measure(|| {
                for _ in 0..commits {
                    seq += 1;
                    group.append(seq, &frame, || None).unwrap();
                }
                group.reach(seq, Goal::Written).unwrap();
            });
            assert!(used.bytes_max > 15 << 20 && used.bytes_current < 3 << 20, "{commits} of {bytes} bytes: {used:?}");
        }
    }
}
