//! What keeps a platform from starting, in one clear sentence each.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use bytes::Bytes;
use http::Request;

use crate::platform::{Ran, call, program, run, up, up_with_management_at};

/// `up` on free ports with a data directory, to its end: for starts that must fail.
fn failing(configure: impl FnOnce(&mut Command)) -> Ran {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = program();
    command.current_dir(dir.path()).arg("up");
    for flag in ["--gateway-addr", "--api-addr", "--traces-addr"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    configure(&mut command);
    run(&mut command)
}

fn assert_one_sentence(ran: &Ran, exit: i32, words: &[&str]) {
    assert_eq!(ran.status.code(), Some(exit), "{ran:?}");
    let errors: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{ran:?}");
    for word in words {
        assert!(errors[0].contains(word), "{word:?} is not in {:?}", errors[0]);
    }
    assert_eq!(ran.stdout, "", "{ran:?}");
}

#[test]
fn a_taken_port_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    for flag in ["--gateway-addr", "--api-addr", "--traces-addr"] {
        let mut command = program();
        let dir = tempfile::tempdir().expect("a directory");
        command.current_dir(dir.path()).arg("up");
        for other in ["--gateway-addr", "--api-addr", "--traces-addr"] {
            command.args([other, if other == flag { &address } else { "127.0.0.1:0" }]);
        }
        assert_one_sentence(&run(&mut command), 1, &[&address, flag]);
    }
}

#[test]
fn an_unusable_data_directory_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().join("below");
    let ran = failing(|command| {
        command.arg("--data-dir").arg(&path);
    });
    assert_one_sentence(&ran, 1, &["data directory", &path.display().to_string()]);
}

#[test]
fn a_data_directory_in_use_names_the_process() {
    let first = up().start();
    let ran = failing(|command| {
        command.arg("--data-dir").arg(first.data_dir());
    });
    assert_one_sentence(&ran, 1, &["in use", &first.pid().to_string()]);
}

#[test]
fn who_listens_for_others_asks_for_a_key() {
    let platform = up_with_management_at("0.0.0.0:0").start();
    let key = platform.first_key().expect("up shows the operator's first key");
    for (address, path) in [(platform.api, "/functions"), (platform.traces, "/api/services")] {
        let asked = |authorization: &str| {
            let request = Request::get(path).header("authorization", authorization);
            call(address, request.body(Bytes::new()).expect("a request")).status().as_u16()
        };
        let nobody = call(address, Request::get(path).body(Bytes::new()).expect("a request"));
        assert_eq!(nobody.status(), 401, "{path}");
        assert_eq!((asked("Bearer fpk_none"), asked(&format!("Bearer {key}"))), (401, 200), "{path}");
    }
}

#[test]
fn a_missing_python_is_said_to_be() {
    let ran = failing(|command| {
        command.args(["--python", "/does/not/exist/python3"]);
    });
    assert_one_sentence(&ran, 1, &["/does/not/exist/python3"]);
}

#[test]
fn a_python_that_path_does_not_have_is_not_used() {
    let ran = failing(|command| {
        command.env("PATH", "/does/not/exist");
    });
    assert_one_sentence(&ran, 1, &["no python3 found on PATH"]);
    let old = tempfile::tempdir().expect("a directory");
    let path = old.path().join("python3");
    std::fs::write(&path, "#!/bin/sh\necho 'cpython 3 9 1'\necho /usr/bin/python3\necho /usr\n")
        .expect("written");
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set");
    let ran = failing(|command| {
        command.env("PATH", old.path());
    });
    assert_one_sentence(&ran, 1, &["3.9.1", "3.10 or newer"]);
}

#[test]
fn what_is_stored_is_for_no_other_user() {
    let platform = up().start();
    let mode = |name: &str| {
        let path = platform.data_dir().join(name);
        path.metadata().unwrap_or_else(|error| panic!("{name}: {error}")).permissions().mode() & 0o777
    };
    assert_eq!(["registry.db", "registry.db-wal"].map(mode), [0o600; 2]);
    assert_eq!((mode("history"), mode("code")), (0o700, 0o711));
}

#[test]
fn a_wrong_configuration_is_told_with_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("platform.toml");
    std::fs::write(&file, "blanks = 1\ngateway_adr = \"127.0.0.1:0\"\n").expect("written");
    let ran = failing(|command| {
        command.arg("--config").arg(&file);
    });
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
    assert!(ran.stderr.contains("line 2") && ran.stderr.contains("gateway_adr"), "{ran:?}");
}

#[test]
fn a_directory_without_functions_is_told_before_anything_starts() {
    let empty = tempfile::tempdir().expect("a directory");
    let ran = failing(|command| {
        command.arg(empty.path());
    });
    assert_one_sentence(&ran, 1, &["function.toml"]);
    assert!(!ran.stderr.contains("starting"), "{ran:?}");
}
