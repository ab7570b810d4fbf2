//! Which images are legal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{create, disk, files, images, images_with, put, remove, rename, set, sync_dir};
use crate::storage::sim::{Budget, Dirty, Fault, Fill, ImageId, Repeat, SimStorage};
use crate::storage::{Storage, WriteFile};

#[test]
fn what_nobody_synced_is_there_in_part_or_not_at_all() {
    let disk = disk();
    create(&disk, "d/a").write_all(b"xy").unwrap();
    assert_eq!(images(&disk), set(["", "a=", "a=x", "a=xy", r"a=\x00y"]));
    let filled = [r"a=\x00\x00", r"a=x\x00", r"a=\xff\xff", r"a=x\xff", r"a=\xffy"];
    let all = &images(&disk) | &set(filled);
    assert_eq!(images_with(&disk, &Budget::default()), all);
}

#[test]
fn syncing_a_file_keeps_its_bytes_and_not_its_name() {
    let disk = disk();
    put(&disk, "d/a", b"xy");
    assert_eq!(images(&disk), set(["", "a=xy"]));
    sync_dir(&disk).unwrap();
    assert_eq!(images_with(&disk, &Budget::default()), set(["a=xy"]));
}

#[test]
fn syncing_a_directory_keeps_its_names_and_not_their_bytes() {
    let disk = disk();
    create(&disk, "d/a").write_all(b"x").unwrap();
    sync_dir(&disk).unwrap();
    assert_eq!(images(&disk), set(["a=", "a=x"]));
}

#[test]
fn a_rename_leaves_the_old_name_or_the_new_one() {
    let disk = disk();
    put(&disk, "d/new", b"new");
    put(&disk, "d/a", b"old");
    sync_dir(&disk).unwrap();
    rename(&disk, "d/new", "d/a").unwrap();
    assert_eq!(images(&disk), set(["a=old new=new", "a=new"]));
    sync_dir(&disk).unwrap();
    assert_eq!(images(&disk), set(["a=new"]));
}

#[test]
fn a_rename_may_survive_without_the_bytes() {
    let disk = disk();
    let mut file = create(&disk, "d/n");
    sync_dir(&disk).unwrap();
    file.write_all(b"x").unwrap();
    rename(&disk, "d/n", "d/a").unwrap();
    assert_eq!(images(&disk), set(["n=", "n=x", "a=", "a=x"]));
}

#[test]
fn a_name_that_a_rename_freed_and_another_file_took_leaves_neither_file_nameless() {
    let disk = disk();
    put(&disk, "d/a", b"1");
    sync_dir(&disk).unwrap();
    rename(&disk, "d/a", "d/b").unwrap();
    put(&disk, "d/a", b"2");
    assert_eq!(images(&disk), set(["a=1", "b=1", "a=2 b=1"]));
}

#[test]
fn a_removal_lasts_once_its_directory_is_synced() {
    let disk = disk();
    put(&disk, "d/a", b"1");
    put(&disk, "d/b", b"2");
    sync_dir(&disk).unwrap();
    remove(&disk, "d/a").unwrap();
    remove(&disk, "d/b").unwrap();
    assert_eq!(images(&disk), set(["a=1 b=2", "a=1", "b=2", ""]));
    sync_dir(&disk).unwrap();
    assert_eq!(images(&disk), set([""]));
}

#[test]
fn a_directory_that_is_lost_takes_all_in_it_along() {
    let disk = SimStorage::new();
    disk.create_dir_all(Path::new("d")).unwrap();
    put(&disk, "d/a", b"1");
    sync_dir(&disk).unwrap();
    assert_eq!(images(&disk), set(["", "a=1"]));
    disk.sync_dir(Path::new("")).unwrap();
    assert_eq!(images(&disk), set(["a=1"]));
}

#[test]
fn a_rename_between_directories_waits_for_the_new_one() {
    let disk = disk();
    disk.create_dir_all(Path::new("e")).unwrap();
    let disk = disk.settled();
    put(&disk, "d/a", b"1");
    sync_dir(&disk).unwrap();
    rename(&disk, "d/a", "e/a").unwrap();
    sync_dir(&disk).unwrap();
    assert_eq!(images(&disk), set(["a=1", "e/a=1"]));
    disk.sync_dir(Path::new("e")).unwrap();
    assert_eq!(images(&disk), set(["e/a=1"]));
}

#[test]
fn an_overwrite_of_synced_bytes_tears_inside_its_range_only() {
    let disk = SimStorage::new();
    let mut file = create(&disk, "a");
    file.write_all(b"12345").unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    file.write_all_at(b"xy", 2).unwrap();
    let old = set(["a=12345", "a=12x45", "a=12xy5", "a=123y5"]);
    assert_eq!(images(&disk), old);
    let zeros = set([r"a=12\x00\x005", r"a=12x\x005", r"a=12\x00y5"]);
    assert_eq!(images_with(&disk, &Budget::default().fills([Fill::Zeros])), &old | &zeros);
    file.sync_data().unwrap();
    assert_eq!(images(&disk), set(["a=12xy5"]));
}

#[test]
fn two_writes_to_one_file_are_kept_and_lost_in_any_order() {
    let disk = disk();
    let mut file = create(&disk, "d/a");
    sync_dir(&disk).unwrap();
    file.write_all(b"x").unwrap();
    file.write_all(b"y").unwrap();
    assert_eq!(images(&disk), set(["a=", "a=x", r"a=\x00y", "a=xy"]));
}

#[test]
fn writes_to_two_files_are_kept_and_lost_in_any_order() {
    let disk = disk();
    let (mut a, mut b) = (create(&disk, "d/a"), create(&disk, "d/b"));
    sync_dir(&disk).unwrap();
    a.write_all(b"x").unwrap();
    b.write_all(b"y").unwrap();
    assert_eq!(images(&disk), set(["a= b=", "a=x b=", "a= b=y", "a=x b=y"]));
    a.sync().unwrap();
    assert_eq!(images(&disk), set(["a=x b=", "a=x b=y"]));
}

#[test]
fn a_change_of_length_is_kept_or_lost() {
    let disk = disk();
    let mut file = create(&disk, "d/a");
    file.write_all(b"123").unwrap();
    file.sync().unwrap();
    sync_dir(&disk).unwrap();
    file.set_len(1).unwrap();
    assert_eq!(images(&disk), set(["a=123", "a=1"]));
    file.set_len(2).unwrap();
    assert_eq!(images(&disk), set(["a=123", "a=1", r"a=1\x00", "a=12"]));
    file.sync().unwrap();
    assert_eq!(images(&disk), set([r"a=1\x00"]));
}

#[test]
fn the_length_may_come_without_the_bytes_and_with_those_of_a_removed_file() {
    let disk = disk();
    put(&disk, "d/old", b"abcd");
    let mut file = create(&disk, "d/a");
    file.write_all(b"1").unwrap();
    file.sync().unwrap();
    remove(&disk, "d/old").unwrap();
    sync_dir(&disk).unwrap();
    file.write_all_at(b"xy", 1).unwrap();
    let old = set(["a=1", "a=1x", "a=1xy", r"a=1\x00y"]);
    let hole = set([r"a=1\x00\x00", r"a=1x\x00"]);
    let stale = set(["a=1bc", "a=1xc", "a=1by"]);
    assert_eq!(images_with(&disk, &Budget::default().fills([Fill::Hole])), &old | &hole);
    assert_eq!(images_with(&disk, &Budget::default().fills([Fill::Stale])), &old | &stale);
}

#[test]
fn what_a_failed_sync_dropped_is_read_back_and_may_be_lost_for_ever() {
    let disk = disk();
    let mut file = create(&disk, "d/a");
    sync_dir(&disk).unwrap();
    file.write_all(b"xy").unwrap();
    disk.fail_at(disk.op_count() + 1, Fault::SyncFails { dirty: Dirty::Dropped }, Repeat::Once);
    file.sync().unwrap_err();
    assert_eq!(disk.read("d/a").unwrap(), b"xy");
    file.write_all(b"z").unwrap();
    file.sync().unwrap();
    assert_eq!(disk.read("d/a").unwrap(), b"xyz");
    // The length is durable, and what was written later; the dropped bytes may be anything.
    assert_eq!(images(&disk), set([r"a=\x00\x00z", r"a=x\x00z", r"a=\x00yz", "a=xyz"]));
    // Written again they are as safe as any.
    file.write_all_at(b"X", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(images(&disk), set([r"a=X\x00z", "a=Xyz"]));
    file.set_len(1).unwrap();
    file.sync().unwrap();
    assert_eq!(images(&disk), set(["a=X"]));
}

#[test]
fn what_a_failed_sync_kept_is_durable_after_the_next() {
    let disk = disk();
    let mut file = create(&disk, "d/a");
    file.write_all(b"x").unwrap();
    let next = disk.op_count() + 1;
    disk.fail_at(next, Fault::SyncFails { dirty: Dirty::Kept }, Repeat::Once);
    disk.fail_at(next + 1, Fault::SyncFails { dirty: Dirty::Kept }, Repeat::Once);
    file.sync().unwrap_err();
    sync_dir(&disk).unwrap_err();
    assert_eq!(images(&disk), set(["", "a=", "a=x"]));
    file.sync().unwrap();
    sync_dir(&disk).unwrap();
    assert_eq!(images(&disk), set(["a=x"]));
}

#[test]
fn a_sync_that_lies_makes_nothing_durable() {
    let disk = disk();
    let mut file = create(&disk, "d/a");
    file.write_all(b"x").unwrap();
    disk.fail_at(1, Fault::SyncLies, Repeat::Forever);
    file.sync().unwrap();
    sync_dir(&disk).unwrap();
    assert_eq!(images(&disk), set(["", "a=", "a=x"]));
    assert_eq!(disk.fault_hits(), 2);
    disk.clear_faults();
    file.sync().unwrap();
    sync_dir(&disk).unwrap();
    assert_eq!(images(&disk), set(["a=x"]));
}

#[test]
fn names_that_a_failed_sync_dropped_may_be_lost_for_ever() {
    let disk = disk();
    put(&disk, "d/a", b"1");
    disk.fail_at(disk.op_count() + 1, Fault::SyncFails { dirty: Dirty::Dropped }, Repeat::Once);
    sync_dir(&disk).unwrap_err();
    put(&disk, "d/b", b"2");
    sync_dir(&disk).unwrap();
    assert_eq!(images(&disk), set(["b=2", "a=1 b=2"]));
    // The name's last state was written: nothing is left of what was dropped.
    remove(&disk, "d/a").unwrap();
    sync_dir(&disk).unwrap();
    assert_eq!(images(&disk), set(["b=2"]));
}

#[test]
fn every_earlier_moment_can_be_crashed_at() {
    let disk = disk();
    disk.mark(7);
    let mut file = create(&disk, "d/a");
    file.write_all(b"x").unwrap();
    disk.list(Path::new("d")).unwrap();
    disk.mark(8);
    file.sync().unwrap();
    file.sync().unwrap();
    disk.mark(9);
    sync_dir(&disk).unwrap();
    disk.mark(10);
    assert_eq!(disk.op_count(), 6);
    assert_eq!(disk.crash_points(), [0, 1, 2, 4, 6], "listing and syncing what is synced change nothing");
    let budget = Budget::default().fills([]);
    let images = |n| disk.images(n, &budget).map(|image| files(&image)).collect::<Vec<_>>();
    assert_eq!(images(0), [""]);
    assert_eq!(images(1), ["a=", ""]);
    assert_eq!(images(2), ["a=x", "", "a="]);
    assert_eq!(images(3), images(2));
    assert_eq!(images(4), ["a=x", ""]);
    assert_eq!(images(6), ["a=x"]);
    assert_eq!(images(99), images(6));
    let marks = [0, 1, 2, 4, 6].map(|n| disk.marks_before(n));
    assert_eq!(marks, [vec![7], vec![7], vec![7, 8], vec![7, 8, 9], vec![7, 8, 9, 10]]);
}

#[test]
fn an_image_is_made_again_from_its_id_and_says_what_it_is() {
    let disk = disk();
    let mut file = create(&disk, "d/a");
    file.write_all(b"hello").unwrap();
    disk.mark(3);
    sync_dir(&disk).unwrap();
    file.sync().unwrap();
    for image in disk.images(2, &Budget::default()) {
        let id: ImageId = image.id().to_string().parse().unwrap();
        let again = disk.image(id, &Budget::default()).unwrap();
        assert_eq!((again.id(), files(&again)), (image.id(), files(&image)));
        assert_eq!(again.describe(), image.describe());
    }
    assert!(disk.image(ImageId { op: 2, index: 1_000_000 }, &Budget::default()).is_none());
    "2-3".parse::<ImageId>().unwrap_err();

    let torn = disk.images(2, &Budget::default()).find(|image| files(image) == r"a=he\xff\xff\xff").unwrap();
    let text = format!(
        "     1  create d/a  <- entry kept\n     \
              2  write d/a at 0 (5 bytes)  <- torn: bytes 0..2 of 5 kept, the rest Ones\n        \
                 mark 3\n\
         ------  crash, SIM_REPRO={}, leaves:\n        d/\n        d/a (5 bytes)\n------\n     \
              3  sync_dir d\n     \
              4  sync d/a\n",
        torn.id()
    );
    assert_eq!(torn.describe(), text);
}

#[test]
fn an_image_is_a_disk_that_crashes_again() {
    let disk = disk();
    put(&disk, "d/a", b"1");
    for (image, want) in disk.images(disk.op_count(), &Budget::default()).zip(["a=1", ""]) {
        assert_eq!(files(&image), want);
        let second = image.storage();
        assert_eq!((second.op_count(), second.crash_points()), (0, vec![0]));
        let paths: Vec<_> = second.list(Path::new("d")).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(paths.len(), want.len().min(1));
        create(&second, "d/b");
        let separator = if want.is_empty() { "" } else { " " };
        assert_eq!(images(&second), set([want, &format!("{want}{separator}b=")]));
        assert_eq!(files(&image), want, "an image is no part of the disk that is made of it");
    }
    assert_eq!(disk.paths(), [Path::new("d/a")]);
}

/// Random programs. What no operation touched since everything was synced is in every image as it was; the first image
/// of each moment is what the program saw.
#[test]
fn what_is_synced_and_not_touched_since_is_in_every_image() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let dirty = if seed % 2 == 0 { Dirty::Kept } else { Dirty::Dropped };
        let disk = disk();
        let mut handles: Vec<Box<dyn WriteFile>> = Vec::new();
        let (mut synced, mut touched) = (BTreeMap::new(), BTreeSet::new());
        for _ in 0..random.usize(5..40) {
            let [from, to] = [(); 2].map(|()| format!("d/{}", ["a", "b", "c", "e"][random.usize(..4)]));
            disk.clear_faults();
            if random.u8(..8) == 0 {
                disk.fail_at(disk.op_count() + 1, Fault::SyncFails { dirty }, Repeat::Once);
            }
            match (random.u8(..10), handles.len()) {
                (0 | 1, _) => {
                    touched.insert(from.clone());
                    handles.extend(disk.create(Path::new(&from)).ok());
                }
                (2, _) => {
                    _ = rename(&disk, &from, &to);
                    touched.extend([from, to]);
                }
                (3, _) => {
                    _ = remove(&disk, &from);
                    touched.insert(from);
                }
                (4, _) => _ = sync_dir(&disk),
                (5, _) => {
                    let all = handles.iter_mut().all(|file| file.sync().is_ok()) && sync_dir(&disk).is_ok();
                    if all && dirty == Dirty::Kept {
                        assert_eq!(images_with(&disk, &Budget::default()).len(), 1, "seed {seed}");
                        handles.clear();
                        touched.clear();
                        let read = |path: PathBuf| (path.to_str().unwrap().to_owned(), disk.read(&path).unwrap());
                        synced = disk.paths().into_iter().map(read).collect();
                    }
                }
                (_, 0) => {}
                (choice, open) => match (&mut handles[random.usize(..open)], choice) {
                    (file, 6) => _ = file.sync(),
                    (file, 7) => file.set_len(random.u64(..12)).unwrap(),
                    (file, _) => {
                        let bytes = vec![random.u8(b'a'..=b'z'); random.usize(..6)];
                        file.write_all_at(&bytes, random.u64(..8)).unwrap();
                    }
                },
            }
            let mut images = disk.images(disk.op_count(), &Budget::small()).peekable();
            let first = images.peek().unwrap();
            let seen = disk.paths().into_iter().map(|path| (disk.read(&path).unwrap(), path));
            let kept = first.paths().into_iter().map(|path| (first.read(&path).unwrap().to_vec(), path));
            assert!(seen.eq(kept), "seed {seed}: {}", first.describe());
            for image in images {
                for (path, bytes) in synced.iter().filter(|(path, _)| !touched.contains(*path)) {
                    let found = image.read(path);
                    assert_eq!(found, Some(bytes.as_slice()), "seed {seed}: {path}: {}", image.describe());
                }
            }
        }
    }
}
