use std::time::Duration;

use super::*;

/// A room with a registry of its own.
pub(crate) struct Room {
    pub(crate) access: Arc<Access>,
    directory: tempfile::TempDir,
}

impl Room {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let access = Self::open(directory.path()).await;
        Self { access, directory }
    }

    async fn open(path: &std::path::Path) -> Arc<Access> {
        let registry = Arc::new(Registry::open(path).unwrap());
        Arc::new(Access::open(registry, Clock::start()).await.unwrap())
    }

    /// As after a restart.
    async fn again(self) -> Self {
        self.access.registry.close().await;
        Self { access: Self::open(self.directory.path()).await, directory: self.directory }
    }

    pub(crate) async fn tenant(&self, name: &str) -> Tenant {
        self.access.create_tenant(name.parse().unwrap()).await.unwrap().name
    }

    pub(crate) fn new_key(&self, tenant: &Tenant, scopes: &str) -> NewKey {
        new_key(tenant, scopes)
    }

    /// A key's text.
    pub(crate) async fn key(&self, tenant: &Tenant, scopes: &str) -> String {
        self.access.create_key(new_key(tenant, scopes)).await.unwrap().text
    }
}

fn new_key(tenant: &Tenant, scopes: &str) -> NewKey {
    NewKey {
        tenant: tenant.clone(),
        name: "ci".parse().unwrap(),
        scopes: scopes.parse().unwrap(),
        expires_us: None,
    }
}

#[tokio::test]
async fn a_key_opens_what_it_was_made_for_also_after_a_restart() {
    let room = Room::new().await;
    let acme = room.tenant("acme").await;
    let text = room.key(&acme, "deploy,read").await;
    let room = room.again().await;
    let key = room.access.check(&text).expect("it is in force");
    assert_eq!((key.tenant(), key.scopes().to_string()), (&acme, "deploy,read".to_owned()));
    assert_eq!(room.access.tenant("acme"), Some(acme));
}

#[tokio::test]
async fn only_the_very_text_is_the_key() {
    let room = Room::new().await;
    let default = Tenant::default();
    let (text, other) = (room.key(&default, "read").await, room.key(&default, "read").await);
    let swapped = format!("{}{}", &text[..13], &other[13..]);
    let last = if text.ends_with('A') { "B" } else { "A" };
    let changed = format!("{}{last}", &text[..text.len() - 1]);
    for wrong in [swapped, changed, format!("{text}A"), format!("fpk_00000000{}", &text[12..]), String::new()]
    {
        assert!(room.access.check(&wrong).is_none(), "{wrong}");
    }
    assert!(room.access.check(&text).is_some());
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_from_then_on_and_neither_do_its_sessions() {
    let room = Room::new().await;
    let default = Tenant::default();
    let text = room.key(&default, "admin").await;
    let key = room.access.check(&text).unwrap();
    let session = room.access.sign_in(&key);
    assert!(room.access.session(&session).is_some());
    let acme = room.tenant("acme").await;
    let of_another = room.access.revoke_key(&acme, key.id().as_str()).await;
    assert!(matches!(of_another, Err(AccessError::NoKey { .. })), "keys of others do not exist");
    room.access.revoke_key(&default, key.id().as_str()).await.unwrap();
    assert!(room.access.check(&text).is_none() && room.access.session(&session).is_none());
    assert!(!room.access.has_operators_key());
    let room = room.again().await;
    assert!(room.access.check(&text).is_none());
    assert!(room.access.keys(&default)[0].revoked_us().is_some(), "it is still listed");
}

#[tokio::test]
async fn a_revocation_is_written_also_when_nobody_waits_for_it() {
    let room = Room::new().await;
    let tenant = Tenant::default();
    let text = room.key(&tenant, "read").await;
    let id = room.access.check(&text).expect("in force").id();
    {
        let revoking = std::pin::pin!(room.access.revoke_key(&tenant, id.as_str()));
        // One look at it, and the client is gone.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = revoking.poll(&mut context);
    }
    // It is one change like any other, so the next comes after it.
    while room.access.check(&text).is_some() {
        tokio::task::yield_now().await;
    }
    room.key(&tenant, "read").await;
    let room = room.again().await;
    assert!(room.access.check(&text).is_none());
}

#[tokio::test]
async fn who_makes_and_revokes_keys_in_turn_holds_no_more_for_it() {
    let room = Room::new().await;
    let default = Tenant::default();
    let acme = room.tenant("acme").await;
    let others = room.access.create_key(new_key(&acme, "read")).await.unwrap().key;
    room.access.revoke_key(&acme, others.id().as_str()).await.unwrap();
    let mut made = Vec::new();
    for _ in 0..MAX_ENDED + 20 {
        let key = room.access.create_key(new_key(&default, "read")).await.unwrap().key;
        room.access.revoke_key(&default, key.id().as_str()).await.unwrap();
        made.push(key.id());
    }
    let last = room.key(&default, "read").await;
    let room = room.again().await;
    let listed: Vec<_> = room.access.keys(&default).iter().map(|key| key.id()).collect();
    assert_eq!(listed.len(), MAX_ENDED + 1);
    assert!(room.access.check(&last).is_some());
    assert!(listed.contains(&made[20]) && !listed.contains(&made[19]), "the first to end go first");
    assert!(room.access.key(others.id()).is_some(), "nobody else's");
}

#[tokio::test]
async fn a_key_is_of_no_use_from_its_expiry_on() {
    let room = Room::new().await;
    let default = Tenant::default();
    let now_us = room.access.clock.wall_now_us();
    let past = NewKey { expires_us: Some(now_us), ..new_key(&default, "read") };
    assert!(matches!(room.access.create_key(past).await, Err(AccessError::AlreadyExpired)));
    let soon = NewKey { expires_us: Some(now_us + 3_600_000_000), ..new_key(&default, "read") };
    let key = room.access.create_key(soon).await.unwrap().key;
    assert!(key.is_live(now_us + 3_599_999_999) && !key.is_live(now_us + 3_600_000_000));
}

#[tokio::test]
async fn nothing_of_a_deleted_tenant_opens_anything() {
    let room = Room::new().await;
    let (acme, globex) = (room.tenant("acme").await, room.tenant("globex").await);
    let (text, others) = (room.key(&acme, "admin").await, room.key(&globex, "admin").await);
    let session = room.access.sign_in(&room.access.check(&text).unwrap());
    room.access.delete_tenant(&acme).await.unwrap();
    assert!(room.access.check(&text).is_none() && room.access.session(&session).is_none());
    assert!(room.access.tenant("acme").is_none() && room.access.check(&others).is_some());
    let room = room.again().await;
    assert!(room.access.keys(&acme).is_empty() && room.access.check(&text).is_none());
    assert_eq!(room.access.tenants().len(), 1);
}

#[tokio::test]
async fn the_operators_tenant_is_always_there() {
    let room = Room::new().await;
    let default = Tenant::default();
    assert!(room.access.has_tenant(&default));
    assert!(matches!(room.access.delete_tenant(&default).await, Err(AccessError::DefaultStays)));
    let again = room.access.create_tenant(default).await;
    assert!(matches!(again, Err(AccessError::TenantExists { .. })));
    let nowhere = new_key(&"nowhere".parse().unwrap(), "read");
    assert!(matches!(room.access.create_key(nowhere).await, Err(AccessError::NoTenant { .. })));
}

#[tokio::test]
async fn the_use_of_a_key_is_noted_to_the_minute() {
    let room = Room::new().await;
    let text = room.key(&Tenant::default(), "read").await;
    let used_us = room.access.check(&text).unwrap().last_used_us().expect("just now");
    assert_eq!(used_us % USE_GRAIN_US, 0);
    room.access.tick();
    assert!(room.access.snapshot.load().keys.values().all(|key| key.unnoted_use().is_none()));
    let room = room.again().await;
    assert_eq!(room.access.keys(&Tenant::default())[0].last_used_us(), Some(used_us));
}

#[tokio::test]
async fn neither_debug_output_nor_the_registry_has_the_secret() {
    let room = Room::new().await;
    let fresh = room.access.create_key(new_key(&Tenant::default(), "read")).await.unwrap();
    let secret =
        fresh.text.rsplit_once(fresh.key.id().as_str()).unwrap().1.trim_start_matches('_').to_owned();
    assert!(!format!("{fresh:?} {:?}", room.access).contains(&secret));
    let room = room.again().await;
    for file in std::fs::read_dir(room.directory.path()).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap();
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{:?} holds the secret", file.path());
    }
}

#[tokio::test]
async fn checking_a_key_takes_microseconds() {
    let room = Room::new().await;
    let text = room.key(&Tenant::default(), "read").await;
    let began = std::time::Instant::now();
    for _ in 0..1_000 {
        assert!(room.access.check(&text).is_some());
    }
    // A hash that is slow on purpose takes tens of milliseconds, in any build.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?} for a thousand", began.elapsed());
}
