//! The machine that kprov itself runs on, as a host.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::shell::{Process, ShellHost, Stream, Sudo, Transport};
use super::{Host, HostError};

/// Opens this machine as host `name`.
///
/// # Errors
/// When the user's identity cannot be found out.
pub fn open(name: &str) -> io::Result<Box<dyn Host>> {
    let output = Command::new("id").arg("-u").output()?;
    let root = output.stdout.trim_ascii() == b"0";
    let user = (!root).then(|| "this user".to_owned());
    Ok(Box::new(ShellHost::new(name, Local { user })))
}

pub(super) struct Local {
    /// The user, if it is not root.
    pub(super) user: Option<String>,
}

impl Transport for Local {
    fn exec(&mut self, command: &str, _silence_max: Duration) -> io::Result<Box<dyn Process>> {
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = output.expect("the child's output was asked to be a pipe");
        Ok(Box::new(LocalProcess { child, input, output }))
    }

    fn connect(
        &mut self,
        address: &str,
        port: u16,
        silence_max: Duration,
    ) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((address, port))?;
        stream.set_read_timeout(Some(silence_max))?;
        Ok(Box::new(stream))
    }

    fn again(&self) -> Result<Self, HostError> {
        Ok(Self { user: self.user.clone() })
    }

    fn sudo(&self) -> Option<Sudo<'_>> {
        self.user.as_deref().map(|user| Sudo { user, password: None })
    }
}

struct LocalProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Read for LocalProcess {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Write for LocalProcess {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Process for LocalProcess {
    fn end_input(&mut self) -> io::Result<()> {
        self.input = None;
        Ok(())
    }

    fn wait(&mut self) -> io::Result<i32> {
        self.input = None;
        Ok(self.child.wait()?.code().unwrap_or(-1))
    }
}

impl Drop for LocalProcess {
    fn drop(&mut self) {
        // Ends the lock holder; a child that has ended already cannot be waited for wrongly.
        self.input = None;
        let _ = self.child.wait();
    }
}
