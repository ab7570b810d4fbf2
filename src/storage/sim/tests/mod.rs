//! The model itself: exactly which images are legal, what faults do, what the monitor sees.

mod faults;
mod legal;
mod order;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::{Budget, Image, SimStorage};
use crate::storage::{Storage, WriteFile};

/// A disk with the durable directory `d`.
fn disk() -> SimStorage {
    let disk = SimStorage::new();
    disk.create_dir_all(Path::new("d")).unwrap();
    disk.settled()
}

fn create(disk: &SimStorage, path: &str) -> Box<dyn WriteFile> {
    disk.create(Path::new(path)).unwrap()
}

/// A file, synced; its name is not.
fn put(disk: &SimStorage, path: &str, bytes: &[u8]) {
    let mut file = create(disk, path);
    file.write_all(bytes).unwrap();
    file.sync().unwrap();
}

fn rename(disk: &SimStorage, from: &str, to: &str) -> io::Result<()> {
    disk.rename(Path::new(from), Path::new(to))
}

fn remove(disk: &SimStorage, path: &str) -> io::Result<()> {
    disk.remove(Path::new(path))
}

fn sync_dir(disk: &SimStorage) -> io::Result<()> {
    disk.sync_dir(Path::new("d"))
}

/// All files, as `a=bytes b=bytes`, without the directory `d`.
fn files(image: &Image) -> String {
    let file = |path: &std::path::PathBuf| {
        let bytes = image.read(path).unwrap().escape_ascii();
        format!("{}={bytes}", path.strip_prefix("d").unwrap_or(path).display())
    };
    image.paths().iter().map(file).collect::<Vec<_>>().join(" ")
}

/// The images of a crash now, with nothing but old bytes where bytes were lost.
fn images(disk: &SimStorage) -> BTreeSet<String> {
    images_with(disk, &Budget::default().fills([]))
}

fn images_with(disk: &SimStorage, budget: &Budget) -> BTreeSet<String> {
    let all: Vec<String> = disk.images(disk.op_count(), budget).map(|image| files(&image)).collect();
    let set: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(set.len(), all.len(), "no image comes twice: {all:?}");
    set
}

fn set<const N: usize>(images: [&str; N]) -> BTreeSet<String> {
    images.map(String::from).into()
}
