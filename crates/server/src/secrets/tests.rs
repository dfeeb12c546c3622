//! Keeping secrets: across restarts, under the right key, in the right place.

use super::*;

struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn registry(&self) -> Arc<Registry> {
        Arc::new(Registry::open(self.dir.path()).unwrap())
    }

    async fn open(&self, discard: bool) -> Result<Secrets, SecretsError> {
        Secrets::open(self.registry(), self.dir.path(), None, discard).await
    }
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

async fn set(secrets: &Secrets, name: &str, value: &str) -> SecretView {
    let value = SecretValue::from(value.as_bytes().to_vec());
    secrets.set(&Tenant::default(), &self::name(name), value, 7).await.unwrap()
}

fn value(secrets: &Secrets, name: &str) -> Option<Vec<u8>> {
    secrets.value(&Tenant::default(), &self::name(name)).map(|value| value.bytes().to_vec())
}

#[tokio::test]
async fn values_come_back_after_a_restart_and_are_nowhere_on_the_disk() {
    let stage = Stage::new();
    let secrets = stage.open(false).await.unwrap();
    set(&secrets, "A", "value-of-a").await;
    set(&secrets, "B", "value-of-b").await;
    set(&secrets, "A", "rotated-a").await;
    assert!(secrets.delete(&Tenant::default(), &name("B")).await.unwrap());
    assert!(!secrets.delete(&Tenant::default(), &name("B")).await.unwrap());
    assert_eq!(value(&secrets, "B"), None);
    drop(secrets);
    let secrets = stage.open(false).await.unwrap();
    assert_eq!(value(&secrets, "A").unwrap(), b"rotated-a");
    let told = secrets.list(&Tenant::default());
    assert_eq!(told, [SecretView { name: name("A"), created_us: 7, rotated_us: 7 }]);
    assert!(secrets.list(&"acme".parse().unwrap()).is_empty());
    assert!(!format!("{secrets:?}").contains("rotated-a"));
    for file in stage.dir.path().read_dir().unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap();
        for text in ["value-of-a", "value-of-b", "rotated-a"] {
            let is_there = bytes.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!is_there, "{text} is in {:?}", file.path());
        }
    }
}

#[tokio::test]
async fn another_key_no_key_and_exchanged_rows_are_refused_and_nothing_is_lost() {
    let stage = Stage::new();
    let secrets = stage.open(false).await.unwrap();
    set(&secrets, "A", "value-of-a").await;
    set(&secrets, "B", "value-of-b").await;
    drop(secrets);
    let (key, aside) = (stage.dir.path().join(KEY_FILE), stage.dir.path().join("aside"));
    std::fs::rename(&key, &aside).unwrap();
    let error = stage.open(false).await.unwrap_err();
    assert!(matches!(error, SecretsError::KeyMissing { .. }), "{error}");
    assert!(!key.exists(), "no other key is made while there are secrets");
    KeyFile::at(key.clone()).read_or_make().unwrap();
    let error = stage.open(false).await.unwrap_err();
    assert!(matches!(error, SecretsError::WrongKey { .. }), "{error}");
    std::fs::rename(&aside, &key).unwrap();
    assert_eq!(value(&stage.open(false).await.unwrap(), "A").unwrap(), b"value-of-a");

    let registry = stage.registry();
    let rows = registry.secrets().await.unwrap();
    for (row, other) in [(&rows[0], &rows[1]), (&rows[1], &rows[0])] {
        registry.put_secret(SealedSecret { name: other.name.clone(), ..row.clone() }).await.unwrap();
    }
    drop(registry);
    let error = stage.open(false).await.unwrap_err();
    assert!(matches!(&error, SecretsError::Tampered { name, .. } if name.as_str() == "A"), "{error}");
    let secrets = stage.open(true).await.unwrap();
    assert!(secrets.list(&Tenant::default()).is_empty(), "given up, as was asked for");
    set(&secrets, "A", "again").await;
    drop(secrets);
    assert_eq!(value(&stage.open(false).await.unwrap(), "A").unwrap(), b"again");
}

#[tokio::test]
async fn a_later_tenant_and_an_earlier_one_learn_nothing_of_each_others_secrets() {
    let stage = Stage::new();
    let secrets = Arc::new(stage.open(false).await.unwrap());
    let acme: Tenant = "acme".parse().unwrap();
    let settings = Settings { secrets: vec![name("MINE")], ..Settings::default() };
    let keep = async |value: &str| {
        let value = SecretValue::from(value.as_bytes().to_vec());
        secrets.set(&acme, &name("MINE"), value, 7).await.unwrap();
    };
    keep("earlier-value").await;
    let earlier = secrets.of_function(&acme, &settings).unwrap();
    let given = earlier.frames();
    secrets.forget_tenant(&acme).await;
    assert!(!secrets.has(&acme, &name("MINE")));
    keep("later-value").await;
    let later = secrets.of_function(&acme, &settings).unwrap();
    let said = "earlier-value later-value";
    assert_eq!(later.mask().masked(said).as_deref(), Some("earlier-value ***"));
    assert_eq!(earlier.mask().masked(said).as_deref(), Some("*** later-value"), "its calls may still run");
    assert!(Arc::ptr_eq(&given, &earlier.frames()));
    secrets.forget_tenant(&acme).await;
    keep("third").await;
    assert_eq!(later.mask().masked(said).as_deref(), Some("earlier-value ***"));
}

#[tokio::test]
async fn values_are_those_of_the_change_that_they_are_counted_under() {
    let stage = Stage::new();
    let secrets = Arc::new(stage.open(false).await.unwrap());
    set(&secrets, "MINE", "value").await;
    let settings = Settings { secrets: vec![name("MINE")], ..Settings::default() };
    let mine = secrets.of_function(&Tenant::default(), &settings).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                secrets.swap(|entries| {
                    let value = Arc::new(SecretValue::from(entries.change.to_string().into_bytes()));
                    entries.all.values_mut().for_each(|entry| entry.value = value.clone());
                });
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            let given = mine.current();
            let (value, count) = (given.values[0].clone().unwrap(), given.change.to_string());
            // The first of all is called `value`.
            let fits = given.change < 3 || value.bytes() == count.as_bytes();
            assert!(fits, "workers would keep a value that is not that of the last change");
        }
    });
}

#[tokio::test]
async fn who_sets_and_deletes_in_turn_holds_nothing() {
    let stage = Stage::new();
    let secrets = Arc::new(stage.open(false).await.unwrap());
    let settings = Settings { secrets: vec![name("MINE")], ..Settings::default() };
    let mine = secrets.of_function(&Tenant::default(), &settings).unwrap();
    for round in 0..20 {
        set(&secrets, &format!("S{round}"), "value-of-a-round").await;
        secrets.delete(&Tenant::default(), &name(&format!("S{round}"))).await.unwrap();
        set(&secrets, "MINE", &format!("mine-in-round-{round}-")).await;
        mine.frames();
        secrets.delete(&Tenant::default(), &name("MINE")).await.unwrap();
    }
    assert!(secrets.entries.load().all.is_empty());
    assert_eq!(mine.mask().masked("mine-in-round-19-").as_deref(), Some("***"), "a worker may have kept it");
    let given = mine.current();
    assert_eq!(given.past.iter().map(Vec::len).collect::<Vec<_>>(), [PAST_VALUES]);
}

#[tokio::test]
async fn a_function_sees_changes_of_its_own_secrets_and_masks_earlier_values() {
    let stage = Stage::new();
    let secrets = Arc::new(stage.open(false).await.unwrap());
    set(&secrets, "MINE", "first-value").await;
    let tenant = Tenant::default();
    assert!(secrets.of_function(&tenant, &Settings::default()).is_none());
    let settings = Settings { secrets: vec![name("MINE")], ..Settings::default() };
    let mine = secrets.of_function(&tenant, &settings).unwrap();
    let before = mine.frames();
    set(&secrets, "OTHER", "others-value").await;
    assert!(Arc::ptr_eq(&before, &mine.frames()), "another's change is none of its workers'");
    assert_eq!(mine.mask().masked("others-value"), None);
    set(&secrets, "MINE", "second-value").await;
    assert!(!Arc::ptr_eq(&before, &mine.frames()));
    assert_eq!(mine.mask().masked("first-value second-value").as_deref(), Some("*** ***"));
    secrets.delete(&tenant, &name("MINE")).await.unwrap();
    assert_eq!(mine.mask().masked("second-value").as_deref(), Some("***"), "a worker may still say it");
    assert!(!format!("{:?} {:?}", mine, mine.frames()).contains("-value"), "{mine:?}");
}
