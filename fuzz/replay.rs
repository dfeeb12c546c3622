//! Corpora as ordinary tests: every file through the target that it belongs to, and mutations of
//! them for as long as is asked.
//!
//! Included by the `corpora` test of each crate that has targets, so it runs on stable, wherever
//! the tests run. A target fails by a panic, or by wanting more memory than its room: the address
//! space is bounded, so that an allocation of what a length field says ends the test, touched or
//! not. `FUNCTIONSPLATFORM_FUZZ_SECONDS` is how long each target is tried (a moment without it);
//! the mutations are the same in every run that tries as many.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a target may take beyond what the test has: the largest code of a function (250 MiB) twice,
/// while its buffer grows.
const ROOM: u64 = 768 << 20;

/// Longest input that is made up: as libFuzzer does, small ones find as much and sooner.
const LONGEST: usize = 16 * 1024;

/// Mutations of each target when no time is asked for.
const FEW: u32 = 2_000;

/// Runs the targets over their corpora.
pub(crate) fn run(targets: &[(&str, impl Fn(&[u8]))]) {
    bound_memory();
    let seconds = env::var("FUNCTIONSPLATFORM_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = seconds.map(Duration::from_secs);
    for (name, target) in targets {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "fuzz/corpus/{name} is empty");
        let mut last = LastWords { target: name, file: String::new(), input: Vec::new() };
        for (file, input) in &corpus {
            last.file.clone_from(file);
            target(last.trying(input.clone()));
        }
        last.file.clear();
        let mut mutator = Mutator::new(corpus.into_values().collect());
        let (begun, mut tried) = (Instant::now(), 0_u32);
        while time.map_or(tried < FEW, |time| begun.elapsed() < time) {
            target(last.trying(mutator.next()));
            tried += 1;
        }
        println!("{name}: {tried} mutations in {:.1} s", begun.elapsed().as_secs_f64());
        last.target = "";
    }
}

/// Keeps what was tried, and says it if that was the last.
struct LastWords<'a> {
    target: &'a str,
    file: String,
    input: Vec<u8>,
}

impl LastWords<'_> {
    fn trying(&mut self, input: Vec<u8>) -> &[u8] {
        self.input = input;
        &self.input
    }
}

impl Drop for LastWords<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() || self.target.is_empty() {
            return;
        }
        if !self.file.is_empty() {
            eprintln!("{} of the corpus of {} did it", self.file, self.target);
            return;
        }
        let place = env::temp_dir().join(format!("fuzz-{}-{}", self.target, std::process::id()));
        if fs::write(&place, &self.input).is_ok() {
            eprintln!(
                "what {} failed on is in {}; mend it, then add it to its corpus",
                self.target,
                place.display()
            );
        }
    }
}

/// More than [`ROOM`] beyond now cannot be had, and an allocation that is refused ends the process.
fn bound_memory() {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel says what a process has");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix(" kB"));
    let kib: u64 = line.and_then(|kib| kib.trim().parse().ok()).expect("its address space, too");
    let maximum = getrlimit(Resource::As).maximum;
    let current = Some((kib << 10) + ROOM);
    setrlimit(Resource::As, Rlimit { current, maximum }).expect("less can always be had");
}

fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let directory: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    paths.map(|path| (path.display().to_string(), fs::read(&path).expect("it can be read"))).collect()
}

/// Makes new inputs of old ones, by the same draws each time (xorshift64*).
struct Mutator {
    seeds: Vec<Vec<u8>>,
    state: u64,
}

/// Where lengths and signs turn over, and what separates things in the formats here.
const TELLING: [u8; 16] =
    [0, 1, 0x7f, 0x80, 0xff, b' ', b'\n', b'"', b'\\', b'/', b'.', b'{', b'[', b'%', b':', b'-'];

impl Mutator {
    fn new(seeds: Vec<Vec<u8>>) -> Self {
        Self { seeds, state: 0x9e37_79b9_7f4a_7c15 }
    }

    fn draw(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.draw() >> 16) as usize % bound.max(1)
    }

    fn next(&mut self) -> Vec<u8> {
        let seed = self.below(self.seeds.len());
        let mut input = self.seeds[seed].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        let length = 1 + self.below(16);
        let end = (at + length).min(input.len());
        match self.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = TELLING[self.below(TELLING.len())],
            2 if !input.is_empty() => drop(input.drain(at..end)),
            3 => input.insert(at, TELLING[self.below(TELLING.len())]),
            4 => {
                let times = 1 + self.below(64);
                let piece = input[at..end].repeat(times);
                input.splice(at..at, piece);
            }
            5 => input.truncate(at),
            6 if end - at >= 4 => {
                let number = [0, 1, 20, u32::MAX, 1 << 31, 0x7fff_ffff][self.below(6)];
                input[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
            }
            _ => {
                let other = self.below(self.seeds.len());
                let from = self.below(self.seeds[other].len());
                let piece: Vec<u8> = self.seeds[other][from..].iter().take(4 * length).copied().collect();
                input.splice(at..at, piece);
            }
        }
    }
}
