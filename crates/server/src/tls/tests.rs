//! Certificates: what is refused, and what a change of the files does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn paths(&self) -> (PathBuf, PathBuf) {
        (self.dir.path().join("cert.pem"), self.dir.path().join("key.pem"))
    }

    fn source(&self) -> TlsSource {
        let (cert, key) = self.paths();
        TlsSource::Files { cert, key }
    }

    fn write(&self, cert: &str, key: &str) {
        let paths = self.paths();
        std::fs::write(paths.0, cert).unwrap();
        std::fs::write(paths.1, key).unwrap();
    }

    fn open(&self) -> Result<Arc<Certificate>, TlsError> {
        Certificate::open(&self.source(), self.dir.path(), &[])
    }
}

fn pair() -> (String, String) {
    make_self_signed(&[]).unwrap()
}

fn valid(from: (i32, u8, u8), until: (i32, u8, u8)) -> (String, String) {
    let mut wanted = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    wanted.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
    wanted.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
    let key = rcgen::KeyPair::generate().unwrap();
    (wanted.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn what_is_wrong_with_the_files_is_one_sentence() {
    let files = Files::new();
    assert!(matches!(files.open().unwrap_err(), TlsError::File { what: "certificate", .. }));
    let (cert, key) = pair();
    files.write(&cert, &pair().1);
    let error = files.open().unwrap_err();
    assert!(
        matches!(error, TlsError::Pair { .. }) && error.to_string().contains("another certificate's"),
        "{error}"
    );
    files.write(&cert, "no key");
    assert!(matches!(files.open().unwrap_err(), TlsError::File { what: "key", .. }));
    files.write(&key, &key);
    assert!(matches!(files.open().unwrap_err(), TlsError::File { what: "certificate", .. }));
    let (old, old_key) = valid((2001, 1, 1), (2002, 3, 4));
    files.write(&old, &old_key);
    let error = files.open().unwrap_err().to_string();
    assert!(error.contains("expired since 2002-03-04"), "{error}");
    let (new, new_key) = valid((2150, 1, 2), (2151, 1, 1));
    files.write(&new, &new_key);
    let error = files.open().unwrap_err().to_string();
    assert!(error.contains("not valid before 2150-01-02"), "{error}");
    files.write(&cert, &key);
    files.open().unwrap();
}

#[test]
fn changed_files_are_taken_up_and_broken_ones_are_not() {
    let files = Files::new();
    let (cert, key) = pair();
    files.write(&cert, &key);
    let served = files.open().unwrap();
    let first = served.config.load_full();
    served.look();
    assert!(Arc::ptr_eq(&first, &served.config.load_full()), "nothing has changed");
    files.write("broken, and of another length", &key);
    served.look();
    assert!(Arc::ptr_eq(&first, &served.config.load_full()), "what worked stays");
    let (cert, key) = valid((2020, 1, 1), (2150, 1, 1));
    files.write(&cert, &key);
    served.look();
    assert!(!Arc::ptr_eq(&first, &served.config.load_full()));
}

#[test]
fn what_could_not_be_used_once_is_tried_again() {
    let files = Files::new();
    let (cert, key) = pair();
    files.write(&cert, &key);
    let served = files.open().unwrap();
    let first = served.config.load_full();
    let (cert, key) = pair();
    files.write(&cert, &key);
    // As after a look at a time that was not yet theirs.
    let stamp = stamp_of(&served.cert, &served.key);
    *served.tried.lock() = Tried { stamp, are_used: false };
    served.look();
    assert!(!Arc::ptr_eq(&first, &served.config.load_full()));
    assert!(*served.tried.lock() == Tried { stamp, are_used: true });
}

#[test]
fn a_key_that_others_can_read_is_not_written_for_them() {
    let files = Files::new();
    let key = files.dir.path().join(OWN_DIRECTORY).join("self-signed.key");
    std::fs::create_dir(key.parent().unwrap()).unwrap();
    std::fs::write(&key, "").unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let made = Certificate::open(&TlsSource::SelfSigned, files.dir.path(), &[]).unwrap();
    assert_eq!(made.key.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_self_signed_one_is_made_once_and_its_key_is_private() {
    let files = Files::new();
    let open = || Certificate::open(&TlsSource::SelfSigned, files.dir.path(), &[]).unwrap();
    let made = open();
    assert_eq!(made.key.metadata().unwrap().mode() & 0o777, 0o600);
    let before = std::fs::read(&made.cert).unwrap();
    assert_eq!(std::fs::read(&open().cert).unwrap(), before);
}

#[test]
fn anything_is_a_certificate_with_times_or_nothing() {
    let chain = CertificateDer::from_pem_slice(pair().0.as_bytes()).unwrap();
    assert!(validity::of(&chain).is_some());
    for length in 0..chain.len().min(200) {
        let _ = validity::of(&chain[..length]);
    }
    assert_eq!(validity::of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
}
