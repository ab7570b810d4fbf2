//! Redis, where `redis-server` is installed: a server of our own on a socket in the temporary directory, spoken to in
//! its protocol (RESP). Another process does the work, so every command crosses the kernel twice.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{Capability, Engine, Entry, Kind, Promise, Reader, Res};
use crate::data::{User, decoded, encoded, key, seen};

pub(crate) static ENTRY: Entry = Entry {
    name: "redis",
    title: "Redis (another process)",
    package: None,
    kind: Kind::Store,
    unsynced: "unix socket, `appendonly yes`, `appendfsync no`, one command a commit, `MSET` for many",
    synced: "`appendfsync always`",
    capabilities: &[
        Capability::Unsynced,
        Capability::Synced,
        Capability::Read,
        Capability::Encoded,
        Capability::Backup,
        Capability::Reopen,
        Capability::Bytes,
    ],
    open: |dir, promise| {
        let socket = dir.join("s");
        let fsync = if promise == Promise::Synced { "always" } else { "no" };
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "yes", "--daemonize", "no", "--appendfsync", fsync])
            .args(["--auto-aof-rewrite-percentage", "0"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut redis = Redis { server, socket, connections: Mutex::new(Vec::new()) };
        redis.wait()?;
        Ok(Box::new(redis))
    },
    missing: || {
        let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_err().then(|| "redis-server is not installed".to_owned())
    },
};

struct Redis {
    server: Child,
    socket: PathBuf,
    /// Idle ones; a writer takes one and puts it back.
    connections: Mutex<Vec<Connection>>,
}

impl Redis {
    fn wait(&mut self) -> Res<()> {
        let start = Instant::now();
        // It answers while it still loads, and says so.
        while !Connection::new(&self.socket).and_then(|mut c| c.ask(&[b"PING"])).unwrap_or(false) {
            if let Some(status) = self.server.try_wait()? {
                return Err(format!("redis-server ended with {status}").into());
            }
            if start.elapsed() > LONGEST {
                return Err("redis-server does not answer".into());
            }
            std::thread::park_timeout(Duration::from_micros(500));
        }
        Ok(())
    }

    fn ask(&self, command: &[&[u8]]) -> Res<bool> {
        Connection::new(&self.socket)?.ask(command)
    }

    /// Until a background job of the server is over.
    fn until_done(&self, running: &str, failed: &str) -> Res<()> {
        let mut connection = Connection::new(&self.socket)?;
        let start = Instant::now();
        while start.elapsed() < LONGEST {
            connection.ask(&[b"INFO", b"persistence"])?;
            let info = String::from_utf8_lossy(&connection.bulk);
            if info.contains(failed) {
                return Err(format!("redis-server reports {failed}").into());
            }
            if !info.contains(running) {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_micros(500));
        }
        Err("redis-server does not come to an end".into())
    }

    fn write(&self, users: &[User]) -> Res<()> {
        let idle = self.connections.lock().map_err(|_| "a writer panicked")?.pop();
        let mut connection = idle.map_or_else(|| Connection::new(&self.socket), Ok)?;
        connection.begin(1 + users.len() * 2);
        connection.argument(if users.len() == 1 { b"SET" } else { b"MSET" });
        for user in users {
            connection.argument(&key(user.id));
            encoded(user, |bytes| connection.argument(bytes))?;
        }
        connection.answer()?;
        self.connections.lock().map_err(|_| "a writer panicked")?.push(connection);
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It is ours, and its files go with it.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Engine for Redis {
    fn insert(&self, user: &User) -> Res<()> {
        self.write(std::slice::from_ref(user))
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        self.write(users)
    }

    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(Connection::new(&self.socket)?))
    }

    /// The append-only file begins anew with an RDB file of all records.
    fn settle(&self) -> Res<()> {
        self.ask(&[b"BGREWRITEAOF"])?;
        self.until_done("aof_rewrite_in_progress:1", "aof_last_bgrewrite_status:err")
    }

    /// A forked copy of the server writes the RDB file and syncs it.
    fn backup_full(&self, dir: &Path) -> Res<u64> {
        self.ask(&[b"BGSAVE"])?;
        self.until_done("rdb_bgsave_in_progress:1", "rdb_last_bgsave_status:err")?;
        // Into its own directory; elsewhere it must not be told to.
        let file = self.socket.with_file_name("dump.rdb");
        let bytes = std::fs::metadata(&file)?.len();
        std::fs::rename(file, dir.join("dump.rdb"))?;
        Ok(bytes)
    }

    fn process(&self) -> Option<u32> {
        Some(self.server.id())
    }

    fn close(mut self: Box<Self>) -> Res<()> {
        // It hangs up instead of an answer.
        let _ = self.ask(&[b"SHUTDOWN", b"NOSAVE"]);
        self.server.wait()?;
        Ok(())
    }

    fn close_small(self: Box<Self>) -> Res<()> {
        self.settle()?;
        (self as Box<dyn Engine>).close()
    }
}

const LONGEST: Duration = Duration::from_secs(120);

struct Connection {
    stream: BufReader<UnixStream>,
    out: Vec<u8>,
    bulk: Vec<u8>,
    line: String,
}

impl Connection {
    fn new(socket: &Path) -> Res<Connection> {
        let stream = BufReader::with_capacity(16 << 10, UnixStream::connect(socket)?);
        Ok(Connection { stream, out: Vec::new(), bulk: Vec::new(), line: String::new() })
    }

    fn begin(&mut self, arguments: usize) {
        self.out.clear();
        self.head(b'*', arguments);
    }

    fn head(&mut self, kind: u8, number: usize) {
        self.out.push(kind);
        // Into memory: cannot fail.
        let _ = write!(self.out, "{number}\r\n");
    }

    fn argument(&mut self, bytes: &[u8]) {
        self.head(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    fn ask(&mut self, command: &[&[u8]]) -> Res<bool> {
        self.begin(command.len());
        for argument in command {
            self.argument(argument);
        }
        self.answer()
    }

    /// Sends the command; the bytes of a bulk answer are in `bulk`.
    fn answer(&mut self) -> Res<bool> {
        self.stream.get_mut().write_all(&self.out)?;
        self.line.clear();
        self.stream.read_line(&mut self.line)?;
        let line = self.line.trim_end();
        match line.split_at_checked(1) {
            Some(("+", _)) => Ok(true),
            Some(("$", "-1")) => Ok(false),
            Some(("$", length)) => {
                self.bulk.resize(length.parse::<usize>()? + 2, 0);
                self.stream.read_exact(&mut self.bulk)?;
                self.bulk.truncate(self.bulk.len() - 2);
                Ok(true)
            }
            _ => Err(format!("redis-server answers {line}").into()),
        }
    }

    fn fetch(&mut self, id: i64) -> Res<Option<&[u8]>> {
        self.begin(2);
        self.argument(b"GET");
        self.argument(&key(id));
        Ok(self.answer()?.then_some(&self.bulk[..]))
    }
}

impl Reader for Connection {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        Ok(self.fetch(id)?.map(decoded).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(self.fetch(id)?.map(seen))
    }
}
