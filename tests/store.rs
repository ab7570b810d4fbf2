//! Opened stores: what is acknowledged is there again.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

/// What a storage leaves to its `files`.
macro_rules! left_to_files {
    ($($operation:ident)*) => { $(left_to_files!(@ $operation);)* };
    (@ open) => {
        fn open(&self, path: &std::path::Path) -> std::io::Result<Box<dyn dictdb::ReadFile>> {
            self.files.open(path)
        }
    };
    (@ create) => {
        fn create(&self, path: &std::path::Path) -> std::io::Result<Box<dyn dictdb::WriteFile>> {
            self.files.create(path)
        }
    };
    (@ list) => {
        fn list(&self, dir: &std::path::Path) -> std::io::Result<Vec<dictdb::DirEntry>> {
            self.files.list(dir)
        }
    };
    (@ rename_new) => {
        fn rename_new(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            self.files.rename_new(from, to)
        }
    };
    (@ rename) => {
        fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            self.files.rename(from, to)
        }
    };
    (@ lock) => {
        fn lock(&self, dir: &std::path::Path) -> Result<Box<dyn dictdb::DirLock>, dictdb::LockError> {
            self.files.lock(dir)
        }
    };
    (@ $operation:ident) => {
        fn $operation(&self, path: &std::path::Path) -> std::io::Result<()> {
            self.files.$operation(path)
        }
    };
}

#[path = "store/backups.rs"]
mod backups;
#[path = "store/basics.rs"]
mod basics;
#[path = "store/compression.rs"]
mod compression;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/damage_shapes.rs"]
mod damage_shapes;
#[path = "store/directories.rs"]
mod directories;
#[path = "store/hooked.rs"]
mod hooked;
#[path = "store/keepers.rs"]
mod keepers;
#[path = "store/kill.rs"]
mod kill;
#[path = "store/left_behind.rs"]
mod left_behind;
#[path = "store/legacy.rs"]
mod legacy;
#[path = "store/looks.rs"]
mod looks;
#[path = "store/poison.rs"]
mod poison;
#[path = "store/put_back.rs"]
mod put_back;
#[path = "store/regressions.rs"]
mod regressions;
