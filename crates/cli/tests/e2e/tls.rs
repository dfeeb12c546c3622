//! TLS on the listeners: self-signed, from files, changed files, and who comes without.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;

use crate::platform::{self, Platform, Ran, program, up};

/// A verb that asks the platform, trusting `ca_cert`.
fn ask(platform: &Platform, ca_cert: &Path) -> Ran {
    let uri = format!("https://{}", platform.api);
    platform::run(program().args(["list", "--platform-uri", &uri, "--ca-cert"]).arg(ca_cert))
}

#[test]
fn a_self_signed_platform_is_reached_by_who_trusts_it() {
    let platform = up().arg("--tls-self-signed").start();
    let made = platform.data_dir().join("tls/self-signed.pem");
    let listed = ask(&platform, &made);
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    let uri = format!("https://{}", platform.api);
    let stranger = platform::run(program().args(["list", "--platform-uri", &uri]));
    assert!(matches!(stranger.status.code(), Some(1 | 6)), "{stranger:?}");

    for address in [platform.gateway, platform.api, platform.traces] {
        let request = Request::get("/healthz").body(Bytes::new()).expect("a request");
        let plain = platform::call(address, request);
        assert_eq!(plain.status(), 400, "{plain:?}");
        let told = String::from_utf8_lossy(plain.body()).into_owned();
        assert!(told.contains("speaks TLS") && told.contains("https://"), "{told}");
    }
    // One that says nothing at all, and one that says nonsense after the first byte.
    let mut garbage = TcpStream::connect(platform.gateway).expect("it listens");
    garbage.write_all(&[0x16, 3, 1, 0xff, 0xff]).expect("sent");
    garbage.shutdown(std::net::Shutdown::Write).expect("half a close");
    let mut rest = Vec::new();
    let _ = garbage.read_to_end(&mut rest);
    assert_eq!(ask(&platform, &made).status.code(), Some(0), "others are served on");
}

#[test]
fn files_are_served_read_again_and_wrong_ones_stop_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    // Two pairs, made by platforms that are asked for self-signed ones.
    let pairs = ["a", "b"].map(|name| {
        let data = dir.path().join(name);
        std::fs::create_dir(&data).expect("made");
        let mut maker = up().arg("--tls-self-signed").data_dir(&data).start();
        maker.stop();
        (data.join("tls/self-signed.pem"), data.join("tls/self-signed.key"))
    });
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let install = |pair: &(std::path::PathBuf, std::path::PathBuf)| {
        std::fs::copy(&pair.0, &cert).expect("copied");
        std::fs::copy(&pair.1, &key).expect("copied");
    };
    install(&pairs[0]);
    std::fs::copy(&pairs[1].1, &key).expect("copied");
    let mut wrong = program();
    wrong.args(["up", "--gateway-addr=:0", "--api-addr=:0", "--traces-addr=:0", "--tls-cert"]);
    wrong.arg(&cert).arg("--tls-key").arg(&key).arg("--data-dir").arg(dir.path().join("data"));
    let ran = platform::run(&mut wrong);
    assert!(!ran.status.success() && ran.stderr.contains("another certificate's"), "{ran:?}");

    install(&pairs[0]);
    let platform = up().arg("--tls-cert").arg(&cert).arg("--tls-key").arg(&key).start();
    assert_eq!(ask(&platform, &pairs[0].0).status.code(), Some(0));
    install(&pairs[1]);
    let limit = Instant::now() + Duration::from_secs(20);
    while ask(&platform, &pairs[1].0).status.code() != Some(0) {
        assert!(Instant::now() < limit, "the new certificate is never served: {}", platform.stderr());
    }
    assert_ne!(ask(&platform, &pairs[0].0).status.code(), Some(0), "the old one is not trusted any more");
    std::fs::write(&cert, "broken").expect("written");
    while !platform.stderr().contains("the one before stays") {
        assert!(Instant::now() < limit, "nothing is said: {}", platform.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(ask(&platform, &pairs[1].0).status.code(), Some(0));
}
