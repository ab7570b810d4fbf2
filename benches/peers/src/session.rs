//! A process that stays and takes turns with those of other engines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::engines::{Entry, Res};
use crate::workloads::{Job, Outcome};

pub(crate) struct Session {
    pub(crate) entry: &'static Entry,
    child: Child,
    /// `None` once it was told to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    dir: tempfile::TempDir,
}

impl Session {
    /// Returns once the process has prepared itself.
    pub(crate) fn start(entry: &'static Entry, dir: tempfile::TempDir, job: &Job) -> Res<Session> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--child")
            .arg(serde_json::to_string(job)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.path().join("stderr"))?)
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut session = Session { entry, child, input, output, dir };
        session.answer()?;
        Ok(session)
    }

    pub(crate) fn ask(&mut self, workload: &str, what: &str) -> Res<Outcome> {
        writeln!(self.input.as_mut().ok_or("it has ended")?, "{workload} {what}")?;
        self.answer()
    }

    fn answer(&mut self) -> Res<Outcome> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            let why = std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
            return Err(format!("it ended: {}", why.lines().last().unwrap_or("no reason given")).into());
        }
        Ok(serde_json::from_str::<Result<Outcome, String>>(&line)??)
    }

    pub(crate) fn end(mut self) -> Res<()> {
        drop(self.input.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Of a session that failed: it ends with its input, and only then its directory goes.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
