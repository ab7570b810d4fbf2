//! What the monitor sees, and what it leaves alone.

use std::io::ErrorKind;
use std::path::Path;

use super::{create, disk, put, remove, rename, sync_dir};
use crate::storage::sim::{Fault, Repeat, SimStorage};

/// The only violation contains this.
fn violates(disk: &SimStorage, what: &str) {
    let violations = disk.violations();
    assert!(matches!(violations.as_slice(), [one] if one.contains(what)), "{what}: {violations:?}");
}

#[test]
fn publishing_in_the_right_order_violates_nothing() {
    let disk = disk();
    put(&disk, "d/dictdb_snapshot_1.bin", b"1");
    sync_dir(&disk).unwrap();
    put(&disk, "d/.dictdb_snapshot_2.bin.tmp", b"2");
    rename(&disk, "d/.dictdb_snapshot_2.bin.tmp", "d/dictdb_snapshot_2.bin").unwrap();
    sync_dir(&disk).unwrap();
    remove(&disk, "d/dictdb_snapshot_1.bin").unwrap();
    remove(&disk, "d/dictdb_snapshot_1.bin").unwrap_err();
    assert_eq!(disk.violations(), [""; 0]);
}

#[test]
fn a_final_name_for_unsynced_bytes_is_seen() {
    let disk = disk();
    create(&disk, "d/a.tmp").write_all(b"1").unwrap();
    rename(&disk, "d/a.tmp", "d/b.tmp").unwrap();
    assert_eq!(disk.violations(), [""; 0]);
    rename(&disk, "d/b.tmp", "d/b").unwrap();
    violates(&disk, "operation 4: d/b.tmp becomes d/b before its bytes are synced");
}

#[test]
fn removing_the_log_before_a_snapshot_is_durable_is_seen() {
    let removed_after = |sync_the_directory| {
        let disk = disk();
        put(&disk, "d/dictdb_log_1.log", b"1");
        sync_dir(&disk).unwrap();
        put(&disk, "d/dictdb_snapshot_2.bin", b"2");
        if sync_the_directory {
            sync_dir(&disk).unwrap();
        }
        remove(&disk, "d/dictdb_log_1.log").unwrap();
        disk
    };
    assert_eq!(removed_after(true).violations(), [""; 0]);
    violates(&removed_after(false), "d/dictdb_log_1.log loses its name: no snapshot");
}

#[test]
fn the_only_snapshot_may_not_go() {
    let disk = disk();
    put(&disk, "d/dictdb_snapshot_1.bin", b"1");
    sync_dir(&disk).unwrap();
    put(&disk, "d/x", b"2");
    rename(&disk, "d/x", "d/dictdb_snapshot_1.bin").unwrap();
    violates(&disk, "operation 8: d/dictdb_snapshot_1.bin loses its name");
}

#[test]
fn a_rule_of_the_callers_replaces_the_stores_own() {
    let disk = disk();
    put(&disk, "d/a", b"1");
    put(&disk, "d/b", b"1");
    create(&disk, "d/c").write_all(b"1").unwrap();
    sync_dir(&disk).unwrap();
    put(&disk, "d/n", b"1");
    disk.set_removal_rule(|removal| {
        let by = removal.replaced_by.map_or("nothing".into(), |by| by.display().to_string());
        Err(format!("by {by}, durable {:?}", removal.durable))
    });
    rename(&disk, "d/n", "d/a").unwrap();
    violates(&disk, r#"operation 13: d/a loses its name: by d/n, durable ["d/b"]"#);
    disk.set_removal_rule(|_| Ok(()));
    remove(&disk, "d/a").unwrap();
    assert_eq!(disk.violations().len(), 1);
}

#[test]
fn going_on_with_a_handle_that_failed_is_seen() {
    let disk = disk();
    let mut file = create(&disk, "d/a");
    disk.fail_at(2, Fault::ShortWrite(1), Repeat::Once);
    disk.fail_at(3, Fault::Interrupted, Repeat::Once);
    disk.fail_at(5, Fault::Error(ErrorKind::Other), Repeat::Once);
    file.write_all(b"123").unwrap();
    assert_eq!(disk.violations(), [""; 0]);
    file.sync().unwrap_err();
    assert_eq!(disk.violations(), [""; 0]);
    file.sync().unwrap();
    violates(&disk, "operation 6: sync of d/a through a handle that has failed");
    file.write_all(b"4").unwrap();
    file.set_len(1).unwrap();
    assert_eq!(disk.violations().len(), 3);
    put(&disk, "d/b", b"another handle");
    assert_eq!(disk.violations().len(), 3);
}

#[test]
fn writing_to_a_removed_file_is_seen() {
    let disk = disk();
    let (mut a, mut b) = (create(&disk, "d/a"), create(&disk, "d/b"));
    remove(&disk, "d/a").unwrap();
    a.sync().unwrap();
    assert_eq!(disk.violations(), [""; 0]);
    a.write_all(b"1").unwrap();
    violates(&disk, "write of d/a, which was removed");
    rename(&disk, "d/b", "d/a").unwrap();
    b.write_all(b"1").unwrap();
    assert_eq!(disk.violations().len(), 1, "a file that has a new name was not removed");
    put(&disk, "d/c", b"1");
    rename(&disk, "d/c", "d/a").unwrap();
    b.set_len(0).unwrap();
    assert_eq!(disk.violations().len(), 2, "one whose name went to another was");
}

#[test]
fn a_sync_that_lied_is_not_the_programs_mistake() {
    let disk = disk();
    disk.fail_at(1, Fault::SyncLies, Repeat::Forever);
    put(&disk, "d/dictdb_snapshot_1.bin", b"1");
    put(&disk, "d/a.tmp", b"1");
    rename(&disk, "d/a.tmp", "d/dictdb_snapshot_2.bin").unwrap();
    sync_dir(&disk).unwrap();
    remove(&disk, "d/dictdb_snapshot_1.bin").unwrap();
    assert_eq!(disk.violations(), [""; 0]);
    assert!(disk.fault_hits() > 2, "{}", disk.fault_hits());
    assert!(disk.paths().contains(&Path::new("d/dictdb_snapshot_2.bin").into()));
}
