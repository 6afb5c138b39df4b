//! Joins the terminal of this program with that of a container.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use signal_hook::consts::SIGWINCH;

/// Bytes are passed on in pieces of at most this size.
const BUFFER: usize = 16 << 10;

/// Two terminals that are one; [`Attached::finish`] separates them, and so does dropping.
#[derive(Debug)]
pub(super) struct Attached {
    output: Option<JoinHandle<()>>,
    before: Option<Termios>,
}

/// Passes input (if `interactive`), output and size of our terminal on to `controller`.
///
/// # Errors
/// When there are no descriptors or threads left.
pub(super) fn attach(controller: OwnedFd, interactive: bool) -> io::Result<Attached> {
    let controller = File::from(controller);
    let reader = controller.try_clone()?;
    let mut attached = Attached { output: None, before: None };
    resize(&controller);
    if interactive {
        let writer = controller.try_clone()?;
        // Keys go to the container as they are: Ctrl-C is its business.
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        attached.before = Some(before);
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        // It waits for a key when the program ends, and nobody waits for it.
        std::thread::Builder::new().name("input".to_owned()).spawn(move || input(writer))?;
    }
    if io::stdout().is_terminal() {
        let mut sizes = signal_hook::iterator::Signals::new([SIGWINCH])?;
        std::thread::Builder::new()
            .name("size".to_owned())
            .spawn(move || sizes.forever().for_each(|_| resize(&controller)))?;
    }
    attached.output = Some(std::thread::Builder::new().name("output".to_owned()).spawn(move || output(reader))?);
    Ok(attached)
}

impl Attached {
    /// Waits until everything that the container wrote is shown, and gives the terminal back as it was.
    pub(super) fn finish(mut self) {
        if let Some(output) = self.output.take() {
            // A panic there has been reported; the container has ended all the same.
            let _ = output.join();
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The terminal may be gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn resize(controller: &File) {
    if let Ok(size) = tcgetwinsize(io::stdout()) {
        // A container that has ended has no size.
        let _ = tcsetwinsize(controller, size);
    }
}

fn input(mut controller: File) {
    let mut buffer = [0; BUFFER];
    while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
        if controller.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Ends with `EIO`, when the last process of the container has closed its end.
fn output(mut controller: File) {
    let mut buffer = [0; BUFFER];
    loop {
        match controller.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let mut out = io::stdout().lock();
                if out.write_all(&buffer[..count]).and_then(|()| out.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
