//! What faults do to the operations that they strike.

use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::{create, disk, images, put, remove, rename, set, sync_dir};
use crate::storage::sim::{Fault, Repeat, SimStorage};
use crate::storage::{LockError, Storage};

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// One operation of each kind; the errors that they returned.
fn all_operations(disk: &SimStorage) -> Vec<Option<ErrorKind>> {
    let mut errors = vec![kind(disk.create_dir_all(Path::new("d/e")))];
    let file = disk.create(Path::new("d/a"));
    errors.push(file.as_ref().err().map(io::Error::kind));
    if let Ok(mut file) = file {
        errors.push(kind(file.write(b"12")));
        errors.push(kind(file.write_at(b"3", 2)));
        errors.push(kind(file.set_len(4)));
        errors.push(kind(file.sync()));
        errors.push(kind(file.sync_data()));
    }
    errors.push(kind(rename(disk, "d/a", "d/b")));
    errors.push(kind(disk.rename_new(Path::new("d/b"), Path::new("d/c"))));
    errors.push(kind(sync_dir(disk)));
    errors.push(kind(disk.list(Path::new("d"))));
    let reader = disk.open(Path::new("d/c"));
    errors.push(reader.as_ref().err().map(io::Error::kind));
    if let Ok(mut reader) = reader {
        errors.push(kind(reader.len()));
        errors.push(kind(reader.read(&mut [0; 2])));
    }
    errors.push(kind(disk.lock(Path::new("d")).map_err(|error| match error {
        LockError::Io(error) => error,
        LockError::Held { .. } => ErrorKind::ResourceBusy.into(),
    })));
    errors.push(kind(remove(disk, "d/c")));
    errors
}

#[test]
fn every_operation_has_a_number_and_can_be_made_to_fail() {
    let count = {
        let disk = disk();
        assert!(all_operations(&disk).iter().all(Option::is_none));
        disk.op_count()
    };
    assert_eq!(count, 16);
    for op in 1..=count {
        let disk = disk();
        disk.fail_at(op, Fault::Error(ErrorKind::PermissionDenied), Repeat::Once);
        let errors = all_operations(&disk);
        let failed = errors.iter().filter(|error| **error == Some(ErrorKind::PermissionDenied)).count();
        assert_eq!((failed, disk.fault_hits()), (1, 1), "operation {op}: {errors:?}");

        let disk = super::disk();
        disk.fail_at(op, Fault::Error(ErrorKind::PermissionDenied), Repeat::Forever);
        let errors = all_operations(&disk);
        let from = usize::try_from(op).unwrap() - 1;
        assert!(errors[..from].iter().all(Option::is_none), "operation {op}: {errors:?}");
        assert!(errors[from..].iter().all(|error| *error == Some(ErrorKind::PermissionDenied)), "{op}: {errors:?}");
    }
}

#[test]
fn an_operation_that_failed_changed_nothing() {
    let disk = disk();
    put(&disk, "d/a", b"1");
    sync_dir(&disk).unwrap();
    disk.fail_at(1, Fault::Error(ErrorKind::Other), Repeat::Forever);
    rename(&disk, "d/a", "d/b").unwrap_err();
    remove(&disk, "d/a").unwrap_err();
    disk.create(Path::new("d/c")).map(drop).unwrap_err();
    assert_eq!(disk.paths(), [Path::new("d/a")]);
    assert_eq!(images(&disk), set(["a=1"]));
}

#[test]
fn a_full_disk_takes_what_fits() {
    for repeat in [Repeat::Once, Repeat::Forever] {
        let disk = disk();
        let mut file = create(&disk, "d/a");
        disk.fail_at(2, Fault::NoSpace { after: 3 }, repeat);
        assert_eq!(kind(file.write_at(b"12345", 0)), Some(ErrorKind::StorageFull));
        assert_eq!(disk.read("d/a").unwrap(), b"123");
        let again = match repeat {
            Repeat::Once => None,
            Repeat::Forever => Some(ErrorKind::StorageFull),
        };
        assert_eq!(kind(file.write_at(b"45", 3)), again);
        assert_eq!(kind(file.set_len(9)), again);
        assert_eq!(kind(file.set_len(1)), None);
        assert_eq!(kind(disk.create(Path::new("d/b"))), again);
        assert_eq!(kind(file.sync()), None);
    }
    let disk = disk();
    disk.fail_at(1, Fault::NoSpace { after: 3 }, Repeat::Forever);
    let mut file = create(&disk, "d/a");
    assert_eq!(file.write(b"12").unwrap(), 2);
    assert_eq!(kind(file.write(b"34")), Some(ErrorKind::StorageFull));
    assert_eq!(disk.read("d/a").unwrap(), b"123");
}

#[test]
fn space_is_taken_by_growth_and_given_back() {
    let disk = disk();
    let mut file = create(&disk, "d/a");
    file.write_all(b"12").unwrap();
    disk.set_space(4);
    assert_eq!(file.write_at(b"12345", 1).unwrap(), 5, "the byte that is there needs no room");
    assert_eq!(file.write_at(b"xyz", 4).unwrap(), 2, "a part fits");
    assert_eq!(kind(file.write_at(b"z", 6)), Some(ErrorKind::StorageFull));
    assert_eq!(kind(file.set_len(7)), Some(ErrorKind::StorageFull));
    assert_eq!(kind(disk.create(Path::new("d/b"))), Some(ErrorKind::StorageFull));
    assert_eq!(file.write_at(b"overwr", 0).unwrap(), 6);
    file.set_len(5).unwrap();
    let mut other = create(&disk, "d/b");
    assert_eq!(other.write_at(b"12", 0).unwrap(), 1);
    remove(&disk, "d/a").unwrap();
    assert_eq!(other.write_at(b"1234567", 1).unwrap(), 5);
}

#[test]
fn short_writes_and_interruptions_are_told() {
    let disk = disk();
    let mut file = create(&disk, "d/a");
    disk.fail_at(2, Fault::ShortWrite(2), Repeat::Once);
    disk.fail_at(4, Fault::Interrupted, Repeat::Forever);
    assert_eq!(file.write(b"12345").unwrap(), 2);
    assert_eq!(file.write(b"345").unwrap(), 3);
    assert_eq!(kind(file.write(b"6")), Some(ErrorKind::Interrupted));
    assert_eq!(file.write(b"6").unwrap(), 1);
    assert_eq!(disk.read("d/a").unwrap(), b"123456");
    disk.fail_at(1, Fault::ShortWrite(0), Repeat::Forever);
    assert_eq!(kind(file.write_all(b"7")), Some(ErrorKind::WriteZero));
    assert_eq!(kind(file.write_all_at(b"7", 0)), Some(ErrorKind::WriteZero));
    assert_eq!(disk.fault_hits(), 4);
    assert_eq!(disk.read("d/a").unwrap(), b"123456");
}

#[test]
fn after_a_crash_the_dead_process_changes_nothing_and_holds_no_lock() {
    let disk = disk();
    put(&disk, "d/a", b"1");
    let mut file = create(&disk, "d/b");
    let mut reader = disk.open(Path::new("d/a")).unwrap();
    let held = disk.lock(Path::new("d")).unwrap();
    let (before, count) = (images(&disk), disk.op_count());
    disk.crash();
    file.write_all(b"2").unwrap_err();
    file.sync().unwrap_err();
    file.set_len(3).unwrap_err();
    reader.read(&mut [0]).unwrap_err();
    sync_dir(&disk.clone()).unwrap_err();
    remove(&disk, "d/a").unwrap_err();
    rename(&disk, "d/a", "d/c").unwrap_err();
    disk.mark(1);
    assert!(matches!(disk.lock(Path::new("d")), Err(LockError::Io(_))));
    assert_eq!((images(&disk), disk.op_count()), (before, count));
    assert_eq!(disk.marks_before(u64::MAX), [0; 0]);

    let image = disk.images(count, &super::Budget::default()).next().unwrap().storage();
    let _second = image.lock(Path::new("d")).unwrap();
    drop(held);
    assert!(matches!(image.lock(Path::new("d")), Err(LockError::Held { .. })));
}
