//! [`GzipWriter`]: one gzip member, compressed in parallel chunks.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::Level;

/// Bytes of input in one chunk. Part of what makes layers reproducible: another size gives other blobs.
const CHUNK: usize = 1024 * 1024;

/// How far back deflate can refer (RFC 1951).
const WINDOW: usize = 32 * 1024;

/// No name, no time, no flags; operating system "unknown" (RFC 1952): nothing that differs between machines.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses into one member. Threads are started when there is more than one chunk, and end with the writer.
pub(super) struct GzipWriter<W: Write> {
    sink: W,
    level: Level,
    threads: usize,
    started: bool,
    /// What is not a whole chunk yet.
    chunk: Vec<u8>,
    /// The end of the chunk before.
    window: Vec<u8>,
    checksum: Crc,
    pool: Option<Pool>,
    /// Chunks that are being compressed, in order.
    pending: VecDeque<Receiver<io::Result<Done>>>,
}

struct Job {
    window: Vec<u8>,
    chunk: Vec<u8>,
    last: bool,
    result: SyncSender<io::Result<Done>>,
}

struct Done {
    compressed: Vec<u8>,
    checksum: Crc,
}

/// Threads that take jobs until their queue is closed.
struct Pool {
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(level: Level, threads: usize, sink: W) -> Self {
        Self {
            sink,
            level,
            threads,
            started: false,
            chunk: Vec::new(),
            window: Vec::new(),
            checksum: Crc::new(),
            pool: None,
            pending: VecDeque::new(),
        }
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.end_chunk(true)?;
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        self.sink.write_all(&self.checksum.sum().to_le_bytes())?;
        // The length modulo 2^32, which is what this counter holds.
        self.sink.write_all(&self.checksum.amount().to_le_bytes())?;
        Ok(self.sink)
    }

    /// Sends the chunk to a thread; a stream of one chunk is compressed right here.
    fn end_chunk(&mut self, last: bool) -> io::Result<()> {
        if !self.started {
            self.sink.write_all(&HEADER)?;
            self.started = true;
        }
        let chunk = std::mem::take(&mut self.chunk);
        let tail = chunk[chunk.len().saturating_sub(WINDOW)..].to_vec();
        let window = std::mem::replace(&mut self.window, tail);
        if last && self.pool.is_none() {
            let done = deflate(self.level, &window, &chunk, last)?;
            return self.write(&done);
        }
        if self.pool.is_none() {
            self.pool = Some(Pool::start(self.level, self.threads)?);
        }
        // Enough to keep every thread busy; memory stays flat.
        while self.pending.len() > self.threads {
            self.write_oldest()?;
        }
        let (result, receiver) = sync_channel(1);
        self.pending.push_back(receiver);
        let queue = self.pool.as_ref().and_then(|pool| pool.queue.as_ref()).expect("the pool was started");
        queue.send(Job { window, chunk, last, result }).map_err(|_| stopped())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(receiver) = self.pending.pop_front() else { return Ok(()) };
        let done = receiver.recv().map_err(|_| stopped())??;
        self.write(&done)
    }

    fn write(&mut self, done: &Done) -> io::Result<()> {
        self.checksum.combine(&done.checksum);
        self.sink.write_all(&done.compressed)
    }
}

fn stopped() -> io::Error {
    io::Error::other("a compression thread ended early")
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK {
            self.end_chunk(false)?;
        }
        if self.chunk.capacity() == 0 {
            self.chunk.reserve(if self.started { CHUNK } else { bytes.len().min(CHUNK) });
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pool {
    fn start(level: Level, threads: usize) -> io::Result<Self> {
        let (queue, jobs) = sync_channel::<Job>(threads);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut pool = Self { queue: Some(queue), threads: Vec::with_capacity(threads) };
        for _ in 0..threads {
            let jobs = Arc::clone(&jobs);
            let work = move || {
                loop {
                    let job = jobs.lock().map(|jobs| jobs.recv());
                    let Ok(Ok(job)) = job else { return };
                    // The writer may have failed and be gone.
                    let _ = job.result.send(deflate(level, &job.window, &job.chunk, job.last));
                }
            };
            match std::thread::Builder::new().name("gzip".to_owned()).spawn(work) {
                Ok(thread) => pool.threads.push(thread),
                // One is enough, where there may be no more.
                Err(error) if pool.threads.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.queue.take());
        for thread in self.threads.drain(..) {
            // A panic in it was seen as a job without a result.
            let _ = thread.join();
        }
    }
}

/// Compresses one chunk. All but the last end with an empty stored block, so that the next begins at a whole byte.
fn deflate(level: Level, window: &[u8], chunk: &[u8], last: bool) -> io::Result<Done> {
    let mut stream = Compress::new(Compression::new(level.get().into()), false);
    if !window.is_empty() {
        stream.set_dictionary(window).map_err(io::Error::other)?;
    }
    let mut checksum = Crc::new();
    checksum.update(chunk);
    let mut compressed = Vec::with_capacity(chunk.len() / 2 + 1024);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let taken = usize::try_from(stream.total_in()).expect("at most one chunk");
        let status = stream.compress_vec(&chunk[taken..], &mut compressed, flush).map_err(io::Error::other)?;
        let all_in = stream.total_in() == chunk.len() as u64;
        let room = compressed.len() < compressed.capacity();
        if status == Status::StreamEnd || (!last && all_in && room) {
            return Ok(Done { compressed, checksum });
        }
        compressed.reserve(chunk.len() / 4 + 1024);
    }
}
