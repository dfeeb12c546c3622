//! What the machine makes of an exchange that is not the platform's: a call's way from one thread to
//! the next (caller, gateway, worker and back) over plain sockets, with nothing on it.
//!
//! It is measured in the same windows as the victim. What an attack adds to it is what the
//! scheduler and the hypervisor do to anybody beside a process that computes as hard as it may.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::siege::VICTIM_PAUSE;

/// Its threads, until it is dropped.
pub(crate) struct Witness {
    over: Arc<AtomicBool>,
    latencies: Arc<Mutex<Vec<Duration>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Witness {
    pub(crate) fn begin() -> Self {
        let (over, latencies) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let caller = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (gateway, _) = listener.accept().expect("a caller");
        let (to_worker, worker) = UnixStream::pair().expect("a pair");
        for stream in [&caller, &gateway] {
            stream.set_nodelay(true).expect("set");
        }
        let threads = vec![
            {
                let (over, latencies) = (over.clone(), latencies.clone());
                std::thread::spawn(move || call_until_over(caller, &over, &latencies))
            },
            std::thread::spawn(move || pass_on(gateway, to_worker)),
            std::thread::spawn(move || answer(worker)),
        ];
        Self { over, latencies, threads }
    }

    /// Its latencies since the last time this was asked.
    pub(crate) fn take_latencies(&self) -> Vec<Duration> {
        std::mem::take(&mut self.latencies.lock().expect("nobody panics with it"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // The caller goes, and each thread after the one that it hears.
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread returns");
        }
    }
}

fn call_until_over(mut gateway: TcpStream, over: &AtomicBool, latencies: &Mutex<Vec<Duration>>) {
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let mut byte = [0];
        gateway.write_all(&byte).and_then(|()| gateway.read_exact(&mut byte)).expect("an answer");
        latencies.lock().expect("nobody panics with it").push(begun.elapsed());
        std::thread::sleep(VICTIM_PAUSE);
    }
}

fn pass_on(mut caller: TcpStream, mut worker: UnixStream) {
    let mut byte = [0];
    while caller.read_exact(&mut byte).is_ok() {
        worker.write_all(&byte).and_then(|()| worker.read_exact(&mut byte)).expect("an answer");
        caller.write_all(&byte).expect("it waits for it");
    }
}

fn answer(mut gateway: UnixStream) {
    let mut byte = [0];
    while gateway.read_exact(&mut byte).is_ok() {
        gateway.write_all(&byte).expect("it waits for it");
    }
}
