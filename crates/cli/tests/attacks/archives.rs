//! Code archives that are not what they seem: refused before a byte is written.

use std::io::{Cursor, Write as _};

use bytes::Bytes;
use http::Request;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::platform::call;
use crate::siege::Siege;

const MANIFEST: &str = "name = \"hostile\"\nevents = [\"http|GET|/hostile\"]\n";
const HANDLER: &str = "def handler(message, context):\n    return 1\n";

type Archive = ZipWriter<Cursor<Vec<u8>>>;

/// An archive of a good function and what `more` adds to it.
fn archive(more: impl FnOnce(&mut Archive, SimpleFileOptions)) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, text) in [("function.toml", MANIFEST), ("handler.py", HANDLER)] {
        add(&mut zip, options, name, text.as_bytes());
    }
    more(&mut zip, options);
    zip.finish().expect("written").into_inner()
}

fn add(zip: &mut Archive, options: SimpleFileOptions, name: &str, content: &[u8]) {
    zip.start_file(name, options).expect("begun");
    zip.write_all(content).expect("written");
}

/// The same, but the name is changed afterwards, where the writer would not take it.
fn archive_with_name(innocent: &str, name: &str) -> Vec<u8> {
    assert_eq!(innocent.len(), name.len());
    let mut bytes = archive(|zip, options| add(zip, options, innocent, b"x"));
    let places: Vec<_> = (0..bytes.len() - innocent.len())
        .filter(|at| bytes[*at..].starts_with(innocent.as_bytes()))
        .collect();
    assert_eq!(places.len(), 2, "one in the entry, one in the directory");
    for at in places {
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
    }
    bytes
}

/// Some 300 MiB in 300 KiB: one entry of zeros, copied as it is.
fn bomb() -> Vec<u8> {
    let zeros = archive(|zip, options| add(zip, options, "zeros", &vec![0; 10 << 20]));
    let mut zeros = zip::ZipArchive::new(Cursor::new(zeros)).expect("an archive");
    archive(|zip, _| {
        for number in 0..30 {
            let entry = zeros.by_name("zeros").expect("there");
            zip.raw_copy_file_rename(entry, format!("bomb{number}")).expect("copied");
        }
    })
}

#[test]
fn hostile_archives_are_refused_by_name_and_leave_nothing() {
    let siege = Siege::of(&[]);
    let outside = siege.platform.data_dir().join("owned");
    let good = archive(|_, _| ());
    let hostile = [
        ("up", archive_with_name("aaaaaaaa/owned", "../../../owned"), "owned"),
        ("absolute", archive_with_name("aaaa/owned", "/tmp/owned"), "owned"),
        ("inside up", archive_with_name("lib/aa/aa/owned", "lib/../../owned"), "owned"),
        ("backslash", archive_with_name("aaaaaaowned", "..\\..\\owned"), "owned"),
        ("zero byte", archive_with_name("aaaaowned", "a\0aaowned"), "owned"),
        (
            "link",
            archive(|zip, options| zip.add_symlink("link", "/etc/shadow", options).expect("added")),
            "link",
        ),
        (
            "device",
            with_mode(archive(|zip, options| add(zip, options, "device", b"x")), "device", 0o060_666),
            "device",
        ),
        ("two of a name", archive_with_name("handler.pz", "handler.py"), "handler.py"),
        ("case", archive(|zip, options| add(zip, options, "HANDLER.py", b"x")), "case"),
        ("file as directory", archive(|zip, options| add(zip, options, "handler.py/x", b"x")), "handler.py"),
        (
            "too many",
            archive(|zip, options| (0..20_001).for_each(|n| add(zip, options, &format!("f{n}"), b""))),
            "files",
        ),
        ("bomb", bomb(), "MiB"),
        ("no archive", b"PK\x03\x04 and nothing".to_vec(), "zip"),
        ("half an archive", good[..good.len() / 2].to_vec(), "zip"),
        ("nothing", Vec::new(), ""),
    ];
    let mut wrong = Vec::new();
    for (what, body, word) in hostile {
        let answer = put(&siege, body);
        println!("{what}: {} {:?}", answer.status(), String::from_utf8_lossy(answer.body()));
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        if !matches!(answer.status().as_u16(), 400 | 413 | 422) || !text.contains(word) {
            wrong.push(format!("{what}: {} {text}", answer.status()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!outside.exists() && !std::path::Path::new("/tmp/owned").exists());
    let code = siege.platform.data_dir().join("code");
    let stored = std::fs::read_dir(&code).expect("the store").count();
    assert_eq!(stored, 1, "the victim's code alone");
    assert_eq!(put(&siege, good).status(), 200);
    siege.end();
}

#[test]
fn a_module_that_attacks_while_it_is_loaded_is_not_deployed() {
    let siege = Siege::of(&[]);
    let modules = [
        ("leaves", "import os\nos._exit(0)\n"),
        ("exits", "raise SystemExit(0)\n"),
        ("crashes", "import ctypes\nctypes.string_at(0)\n"),
        (
            "forges",
            "import os, struct\nos.write(5, struct.pack('<IBBHQI', 0xFFFFFFFF, 17, 0, 0, 0, 2))\nimport time\ntime.sleep(60)\n",
        ),
        ("fills", "hoard = []\nwhile True:\n    hoard.append(b'x' * (8 << 20))\n"),
        ("bombs", "import os\nfor _ in range(5):\n    os.fork()\n"),
    ];
    for (what, module) in modules {
        if what == "fills" && !siege.enforces("memory limit") {
            continue;
        }
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default();
        add(&mut zip, options, "function.toml", format!("{MANIFEST}memory = \"64MiB\"\n").as_bytes());
        add(&mut zip, options, "handler.py", module.as_bytes());
        let answer = put(&siege, zip.finish().expect("written").into_inner());
        println!("{what}: {} {:?}", answer.status(), String::from_utf8_lossy(answer.body()));
        assert_eq!(answer.status(), 422, "{what}: {answer:?}");
    }
    siege.assert_nothing_left();
    siege.end();
}

/// Sets the file type of an entry in the archive's directory, which the writer would not.
fn with_mode(mut bytes: Vec<u8>, name: &str, mode: u32) -> Vec<u8> {
    let directory = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").expect("a last entry");
    assert!(bytes[directory + 46..].starts_with(name.as_bytes()));
    bytes[directory + 38..directory + 42].copy_from_slice(&(mode << 16).to_le_bytes());
    bytes
}

fn put(siege: &Siege, archive: Vec<u8>) -> http::Response<Bytes> {
    let request = Request::put("/functions/hostile").header("content-type", "application/zip");
    call(siege.platform.api, request.body(Bytes::from(archive)).expect("a request"))
}
