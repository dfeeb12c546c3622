//! The layers behind `up` and `doctor`: flag > environment > file > default.
//!
//! The file is `--config`, else `./functionsplatform.toml` where there is one. Its keys are the
//! flags in snake case, and the tables `[services]`, `[tenants]`, `[history]` and `[[notify]]`. Unknown keys are errors
//! with their line. The environment is clap's: each flag has its variable. What comes out is
//! [`fp_server::Config`]; nothing below reads a file or the environment again.

mod file;

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use fp_server::config::{Config, ErrorDetail, Isolation, PreloadConfig, PreloadPolicy, TlsSource};
use serde::Deserialize;

use self::file::{File, Notify, Preload, read_file};
use crate::exit::Failure;

/// Read when `--config` is not given and it is there.
const DEFAULT_FILE: &str = "functionsplatform.toml";

/// Most blank workers: each is a process of some megabytes that waits, and a burst of cold calls
/// is served by as many at once as the machine has cores.
const MOST_BLANKS: usize = 256;

/// The flags of `up` and `doctor` that describe a platform.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlatformFlags {
    /// Configuration file [default: ./functionsplatform.toml where there is one]
    #[arg(long, value_name = "FILE", env = "FUNCTIONSPLATFORM_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Where functions are called; port 0 takes a free one [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    #[arg(env = "FUNCTIONSPLATFORM_GATEWAY_ADDR", hide_env_values = true)]
    gateway_addr: Option<SocketAddr>,
    /// Management API and dashboard [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    #[arg(env = "FUNCTIONSPLATFORM_API_ADDR", hide_env_values = true)]
    api_addr: Option<SocketAddr>,
    /// Trace pages and the Jaeger query API [default: 127.0.0.1:16686]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    #[arg(env = "FUNCTIONSPLATFORM_TRACES_ADDR", hide_env_values = true)]
    traces_addr: Option<SocketAddr>,
    /// Where services send their spans, OTLP/HTTP [default: 127.0.0.1:4318, if nobody else is there]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    #[arg(env = "FUNCTIONSPLATFORM_OTLP_ADDR", hide_env_values = true)]
    otlp_addr: Option<SocketAddr>,
    /// Answer the management API and the traces only to holders of a key, also on loopback
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[arg(env = "FUNCTIONSPLATFORM_REQUIRE_KEY", hide_env_values = true)]
    pub(crate) require_key: Option<bool>,
    /// Let named tenants share a host that does not keep them apart
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[arg(env = "FUNCTIONSPLATFORM_ALLOW_WEAK_ISOLATION_BETWEEN_TENANTS", hide_env_values = true)]
    allow_weak_isolation_between_tenants: Option<bool>,
    /// Further names that the management API and the traces answer to
    #[arg(long, alias = "api-host", value_name = "NAMES", value_delimiter = ',', value_parser = host_name)]
    #[arg(env = "FUNCTIONSPLATFORM_API_HOSTS", hide_env_values = true)]
    api_hosts: Option<Vec<String>>,
    /// Names, besides localhost, below which tenants have host names at the gateway
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = host_name)]
    #[arg(env = "FUNCTIONSPLATFORM_GATEWAY_HOSTS", hide_env_values = true)]
    gateway_hosts: Option<Vec<String>>,
    /// Functions, history and everything else that is kept [default: ./.functionsplatform]
    #[arg(long, value_name = "DIR", env = "FUNCTIONSPLATFORM_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,
    /// The Python to prefer [default: the newest found from 3.10 on]
    #[arg(long, value_name = "FILE", env = "FUNCTIONSPLATFORM_PYTHON", hide_env_values = true)]
    python: Option<PathBuf>,
    /// What functions may preload: any, none, or modules separated by commas [default: any]
    #[arg(long, value_name = "MODULES", env = "FUNCTIONSPLATFORM_PRELOAD", hide_env_values = true)]
    preload: Option<PreloadPolicy>,
    /// Directories that preloaded modules are looked up in, before the Python's site-packages
    #[arg(long, value_name = "DIRS", value_delimiter = ',')]
    #[arg(env = "FUNCTIONSPLATFORM_LAYERS", hide_env_values = true)]
    layers: Option<Vec<PathBuf>>,
    /// Memory that one set of preloaded modules may take [default: 1GiB]
    #[arg(long, value_name = "SIZE", env = "FUNCTIONSPLATFORM_PRELOAD_MEMORY", hide_env_values = true)]
    preload_memory: Option<bytesize::ByteSize>,
    /// Blank workers kept ready [default: 4]
    #[arg(long, value_name = "N", env = "FUNCTIONSPLATFORM_BLANKS", hide_env_values = true)]
    blanks: Option<usize>,
    /// Workers of all functions at once [default: as many as there are open files for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(env = "FUNCTIONSPLATFORM_MAX_WORKERS", hide_env_values = true)]
    max_workers: Option<u32>,
    /// Memory that all workers together may take [default: what the host can spare]
    #[arg(long, value_name = "SIZE", env = "FUNCTIONSPLATFORM_WORKER_MEMORY", hide_env_values = true)]
    worker_memory: Option<bytesize::ByteSize>,
    /// Take the best isolation that this host has, or refuse to start below the floor [default: best]
    #[arg(long, value_enum, env = "FUNCTIONSPLATFORM_ISOLATION", hide_env_values = true)]
    isolation: Option<IsolationWord>,
    /// What error answers tell callers [default: full on loopback without tenants, else safe]
    #[arg(long, value_enum, env = "FUNCTIONSPLATFORM_ERRORS", hide_env_values = true)]
    errors: Option<Errors>,
    /// Certificate of all listeners, a PEM file that is read again when it changes
    #[arg(long, value_name = "FILE", env = "FUNCTIONSPLATFORM_TLS_CERT", hide_env_values = true)]
    tls_cert: Option<PathBuf>,
    /// Its private key, a PEM file
    #[arg(long, value_name = "FILE", env = "FUNCTIONSPLATFORM_TLS_KEY", hide_env_values = true)]
    tls_key: Option<PathBuf>,
    /// Certificate of the gateway alone
    #[arg(long, value_name = "FILE", env = "FUNCTIONSPLATFORM_GATEWAY_TLS_CERT", hide_env_values = true)]
    gateway_tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", env = "FUNCTIONSPLATFORM_GATEWAY_TLS_KEY", hide_env_values = true)]
    gateway_tls_key: Option<PathBuf>,
    /// Certificate of the management API and the trace pages alone
    #[arg(long, value_name = "FILE", env = "FUNCTIONSPLATFORM_API_TLS_CERT", hide_env_values = true)]
    api_tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", env = "FUNCTIONSPLATFORM_API_TLS_KEY", hide_env_values = true)]
    api_tls_key: Option<PathBuf>,
    /// Make a certificate for the listeners that were given none, for a first look
    #[arg(long, env = "FUNCTIONSPLATFORM_TLS_SELF_SIGNED", hide_env_values = true)]
    tls_self_signed: bool,
    /// Connections of one address at once, those of this machine apart [default: 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(env = "FUNCTIONSPLATFORM_CONNECTIONS_PER_ADDRESS", hide_env_values = true)]
    connections_per_address: Option<u32>,
    /// Where the key of secrets is [default: secrets.key in the data directory]
    #[arg(long, value_name = "FILE", env = "FUNCTIONSPLATFORM_SECRETS_KEY_FILE", hide_env_values = true)]
    secrets_key_file: Option<PathBuf>,
    /// Delete secrets that cannot be read any more instead of refusing to start
    #[arg(long, env = "FUNCTIONSPLATFORM_DISCARD_UNREADABLE_SECRETS", hide_env_values = true)]
    discard_unreadable_secrets: bool,
    /// How long running calls may take to end when the platform stops [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(env = "FUNCTIONSPLATFORM_DRAIN_LIMIT", hide_env_values = true)]
    drain_limit: Option<Duration>,
}

/// How much isolation will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum IsolationWord {
    /// Whatever the host allows; `doctor` says what that is.
    Best,
    /// Everything that keeps people apart who do not trust each other.
    Strict,
}

/// What error answers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Errors {
    /// Type and message of exceptions, routes that are near.
    Full,
    /// Type, id and hint.
    Safe,
}

impl PlatformFlags {
    /// The layers merged.
    pub(crate) fn configuration(&self) -> Result<Config, Failure> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None if Path::new(DEFAULT_FILE).is_file() => read_file(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        self.merge(file)
    }

    fn merge(&self, file: File) -> Result<Config, Failure> {
        let default = Config::default();
        let flags = self.clone();
        let errors = flags.errors.or(file.errors).map(|errors| match errors {
            Errors::Full => ErrorDetail::Full,
            Errors::Safe => ErrorDetail::Safe,
        });
        let isolation = flags.isolation.or(file.isolation).map(|word| match word {
            IsolationWord::Best => Isolation::Best,
            IsolationWord::Strict => Isolation::Strict,
        });
        let preload = PreloadConfig {
            allowed: flags.preload.or(file.preload.map(Preload::policy)).unwrap_or(default.preload.allowed),
            layers: flags.layers.or(file.layers).unwrap_or(default.preload.layers),
            memory: flags
                .preload_memory
                .map(|size| size.as_u64())
                .or(file.preload_memory)
                .unwrap_or(default.preload.memory),
        };
        let blanks = flags.blanks.or(file.blanks).unwrap_or(default.blanks);
        if blanks > MOST_BLANKS {
            let wrong =
                format!("blanks is {blanks}, the most is {MOST_BLANKS}: each is a process that waits");
            return Err(Failure::usage(wrong));
        }
        // A flag's file goes with a flag's file: the layers are merged pair by pair.
        let pair =
            |name, flags: (Option<PathBuf>, Option<PathBuf>), file: (Option<PathBuf>, Option<PathBuf>)| {
                let (cert, key) = if flags == (None, None) { file } else { flags };
                certificate(name, cert, key)
            };
        let gateway_tls = pair(
            "gateway-tls",
            (flags.gateway_tls_cert, flags.gateway_tls_key),
            (file.gateway_tls_cert, file.gateway_tls_key),
        )?;
        let management_tls =
            pair("api-tls", (flags.api_tls_cert, flags.api_tls_key), (file.api_tls_cert, file.api_tls_key))?;
        let for_all = pair("tls", (flags.tls_cert, flags.tls_key), (file.tls_cert, file.tls_key))?;
        let is_self_signed = flags.tls_self_signed || file.tls_self_signed.unwrap_or_default();
        let for_all = for_all.or_else(|| is_self_signed.then_some(TlsSource::SelfSigned));
        Ok(Config {
            gateway_addr: flags.gateway_addr.or(file.gateway_addr).unwrap_or(default.gateway_addr),
            api_addr: flags.api_addr.or(file.api_addr).unwrap_or(default.api_addr),
            traces_addr: flags.traces_addr.or(file.traces_addr).unwrap_or(default.traces_addr),
            otlp_addr: flags.otlp_addr.or(file.otlp_addr),
            require_key: flags.require_key.or(file.require_key).unwrap_or(default.require_key),
            allow_weak_isolation_between_tenants: flags
                .allow_weak_isolation_between_tenants
                .or(file.allow_weak_isolation_between_tenants)
                .unwrap_or(default.allow_weak_isolation_between_tenants),
            api_hosts: flags.api_hosts.or(file.api_hosts).unwrap_or(default.api_hosts),
            gateway_hosts: flags.gateway_hosts.or(file.gateway_hosts).unwrap_or(default.gateway_hosts),
            data_dir: flags.data_dir.or(file.data_dir).unwrap_or(default.data_dir),
            python: flags.python.or(file.python),
            preload,
            blanks,
            max_workers: flags.max_workers.or(file.max_workers),
            worker_memory: flags.worker_memory.map(|size| size.as_u64()).or(file.worker_memory),
            isolation: isolation.unwrap_or(default.isolation),
            errors,
            drain_limit: flags.drain_limit.or(file.drain_limit).unwrap_or(default.drain_limit),
            gateway_tls: gateway_tls.or_else(|| for_all.clone()),
            management_tls: management_tls.or(for_all),
            connections_per_address: flags
                .connections_per_address
                .or(file.connections_per_address)
                .unwrap_or(default.connections_per_address),
            secrets_key_file: flags.secrets_key_file.or(file.secrets_key_file),
            discard_unreadable_secrets: flags.discard_unreadable_secrets
                || file.discard_unreadable_secrets.unwrap_or(default.discard_unreadable_secrets),
            services: file.services.urls()?,
            tenants: file.tenants.permits(),
            history: file.history.over(default.history)?,
            notify: Notify::all(file.notify)?,
            ..default
        })
    }
}

/// A certificate with its key; one without the other is a mistake.
fn certificate(
    name: &str,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<TlsSource>, Failure> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsSource::Files { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::usage(format!("--{name}-cert needs --{name}-key"))),
        (None, Some(_)) => Err(Failure::usage(format!("--{name}-key needs --{name}-cert"))),
    }
}

/// `127.0.0.1:5000`, `[::1]:5000`, `localhost:5000`, or a port alone for loopback.
fn address(text: &str) -> Result<SocketAddr, String> {
    let full = match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text,
    };
    let mut found = full.to_socket_addrs().map_err(|_| "write it as 127.0.0.1:5000".to_owned())?;
    // `localhost` is often ::1 first; everything here prefers the address that is printed.
    let first = found.next();
    found.find(SocketAddr::is_ipv4).or(first).ok_or_else(|| "no such host".into())
}

/// A name in a URL: labels with dots between them, and a port where one is meant.
fn host_name(text: &str) -> Result<String, String> {
    let (name, port) = text.split_once(':').unwrap_or((text, "1"));
    let is_label = |label: &str| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(inside)
    };
    if name.split('.').all(is_label) && port.parse::<u16>().is_ok() {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("{text:?} is not a host name; write it as functions.example.com"))
}

#[cfg(test)]
mod tests {
    use fp_server::config::Severity;

    use super::file::is_url;
    use super::*;
    use crate::exit::Exit;

    fn file(text: &str) -> File {
        toml::from_str(text).expect("a configuration")
    }

    #[test]
    fn every_key_of_the_file_arrives() {
        let config = PlatformFlags::default()
            .merge(file(
                r#"
                gateway_addr = "0.0.0.0:80"
                api_addr = "8001"
                traces_addr = "[::1]:0"
                require_key = true
                allow_weak_isolation_between_tenants = true
                api_hosts = ["admin.example.com:8443"]
                gateway_hosts = ["Example.com"]
                data_dir = "/var/lib/fp"
                python = "/usr/bin/python3.11"
                preload = ["numpy"]
                layers = ["/opt/science"]
                preload_memory = "2GiB"
                blanks = 2
                isolation = "strict"
                errors = "safe"
                tls_cert = "/etc/fp/all.pem"
                tls_key = "/etc/fp/all.key"
                gateway_tls_cert = "/etc/fp/gateway.pem"
                gateway_tls_key = "/etc/fp/gateway.key"
                connections_per_address = 5
                secrets_key_file = "/etc/fp/secrets.key"
                discard_unreadable_secrets = true
                drain_limit = "1m 30s"
                [services]
                sql_db = "postgres://db/x"
                [tenants]
                services = ["acme"]
                full_network = "any"
                [history]
                ring = "1MiB"
                disk = "2GiB"
                keep = "7d"
                per_function_per_second = 1
                total_per_second = 2
                [[notify]]
                webhook = "https://hooks.example.com/slo"
                secret = "whsec_c2VjcmV0"
                severities = ["page"]
                "#,
            ))
            .expect("merges");
        assert_eq!(config.gateway_addr.to_string(), "0.0.0.0:80");
        assert_eq!(config.api_addr.to_string(), "127.0.0.1:8001");
        assert_eq!(config.traces_addr.to_string(), "[::1]:0");
        assert!(config.require_key && config.allow_weak_isolation_between_tenants);
        assert_eq!(config.api_hosts, ["admin.example.com:8443"]);
        assert_eq!(config.gateway_hosts, ["example.com"]);
        assert_eq!(config.data_dir, Path::new("/var/lib/fp"));
        assert_eq!(config.python.as_deref(), Some(Path::new("/usr/bin/python3.11")));
        assert_eq!(config.preload.allowed, PreloadPolicy::Only(vec!["numpy".into()]));
        assert_eq!(config.preload.layers, [Path::new("/opt/science")]);
        assert_eq!(config.preload.memory, 2 << 30);
        assert_eq!(config.blanks, 2);
        assert_eq!(config.isolation, Isolation::Strict);
        assert_eq!(config.errors, Some(ErrorDetail::Safe));
        assert_eq!(config.secrets_key_file.as_deref(), Some(Path::new("/etc/fp/secrets.key")));
        assert!(config.discard_unreadable_secrets);
        let files = |name: &str| TlsSource::Files {
            cert: format!("/etc/fp/{name}.pem").into(),
            key: format!("/etc/fp/{name}.key").into(),
        };
        assert_eq!(config.gateway_tls, Some(files("gateway")));
        assert_eq!(config.management_tls, Some(files("all")));
        assert_eq!(config.connections_per_address, 5);
        assert_eq!(config.drain_limit, Duration::from_secs(90));
        assert_eq!(config.services["sql_db"], "postgres://db/x");
        let tenants = ["default", "acme", "globex"].map(|tenant| tenant.parse().expect("a tenant"));
        assert_eq!(
            tenants.each_ref().map(|tenant| config.tenants.services.allows(tenant)),
            [true, true, false]
        );
        assert_eq!(tenants.each_ref().map(|tenant| config.tenants.full_network.allows(tenant)), [true; 3]);
        assert_eq!((config.history.ring_bytes, config.history.disk_bytes), (1 << 20, 2 << 30));
        assert_eq!(config.history.keep, Duration::from_secs(7 * 86_400));
        let [told] = &config.notify[..] else { panic!("one") };
        assert_eq!((told.name.as_str(), told.to.url()), ("webhook-0", "https://hooks.example.com/slo"));
        assert_eq!(told.severities, [Severity::Page].into());
        assert_eq!((config.history.per_function_per_second, config.history.total_per_second), (1, 2));
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused_in_a_sentence() {
        for (text, sentence) in [
            ("blanks = 100000", "blanks is 100000, the most is 256: each is a process that waits"),
            ("tls_cert = \"/x\"", "--tls-cert needs --tls-key"),
            ("[history]\nring = \"1\"", "history.ring is 1 bytes, the least is 1.0 MiB"),
            (
                "[[notify]]\nname = \"x\"",
                "notify.0 needs one of webhook = \"https://…\" and alertmanager = \"http://…\"",
            ),
            ("[[notify]]\nwebhook = \"ftp://x\"", "notify.0.webhook: it is no http or https URL"),
            (
                "[[notify]]\nalertmanager = \"http://x\"\nsecret = \"s\"",
                "notify.0.secret is for webhooks, and this is an alertmanager",
            ),
            (
                "[[notify]]\nname = \"a\"\nwebhook = \"http://x\"\n[[notify]]\nname = \"a\"\nwebhook = \"http://y\"",
                "notify.1: there is another one called \"a\"",
            ),
            ("[services]\nsql_db = \"not a url\"", "services.sql_db is not a URL"),
            ("[services]\ncache_service = \"redis:6379\"", "services.cache_service is not a URL"),
        ] {
            let refused = PlatformFlags::default().merge(file(text)).expect_err(text);
            assert_eq!((refused.exit, refused.message.as_str()), (Exit::Usage, sentence));
        }
        for url in ["redis://cache:6379", "amqp+ssl://u:p@q/v", "sqlite:///var/x.db"] {
            assert!(is_url(url), "{url}");
        }
        assert_eq!(read_file(Path::new("/does/not/exist.toml")).expect_err("no file").exit, Exit::Usage);
    }

    #[test]
    fn flags_win_over_the_file_and_that_over_defaults() {
        let flags = PlatformFlags { blanks: Some(7), ..PlatformFlags::default() };
        let config = flags.merge(file("blanks = 2\ndrain_limit = \"1s\"")).expect("merges");
        assert_eq!(config.blanks, 7);
        assert_eq!(config.drain_limit, Duration::from_secs(1));
        assert_eq!(config.gateway_addr, Config::default().gateway_addr);
        assert_eq!(config.preload.allowed, PreloadPolicy::Any);
        let config = PlatformFlags::default().merge(file("preload = \"none\"")).expect("merges");
        assert_eq!(config.preload.allowed, PreloadPolicy::None);
    }

    #[test]
    fn a_key_is_required_by_the_bare_flag_and_by_its_value() {
        use clap::Parser;
        let required = |flags: &[&str]| {
            let line = ["functionsplatform", "up"].iter().chain(flags);
            match crate::flags::Cli::try_parse_from(line).expect("parses").verb {
                crate::flags::Verb::Up(up) => up.platform.require_key,
                _ => None,
            }
        };
        assert_eq!(required(&["--require-key"]), Some(true));
        assert_eq!(required(&["--require-key=false"]), Some(false));
        assert_eq!(required(&[]), None);
        for wrong in ["", "a b", "http://x", "x:y", ".", "a..b", "*.example.com"] {
            assert!(host_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn unknown_keys_are_errors_with_their_line() {
        let error =
            toml::from_str::<File>("blanks = 2\ngateway_adr = \"x\"").expect_err("unknown").to_string();
        assert!(error.contains("line 2") && error.contains("gateway_adr"), "{error}");
        assert!(toml::from_str::<File>("[services]\nmysql = \"x\"").is_err());
        let error = toml::from_str::<File>("preload = 3").expect_err("no list").to_string();
        assert!(error.contains("write \"any\""), "{error}");
        let error =
            toml::from_str::<File>("[tenants]\nservices = \"acme\"").expect_err("no list").to_string();
        assert!(error.contains("a list of tenants"), "{error}");
        assert!(toml::from_str::<File>("[tenants]\nservices = [\"A b\"]").is_err());
    }

    #[test]
    fn the_url_of_a_service_may_be_in_a_file() {
        let secret = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(secret.path(), "redis://:pw@cache\n").expect("written");
        let text = format!("[services]\ncache_service = {{ file = {:?} }}", secret.path());
        let config = PlatformFlags::default().merge(file(&text)).expect("merges");
        assert_eq!(config.services["cache_service"], "redis://:pw@cache");
    }

    #[test]
    fn addresses_are_read_generously() {
        for (text, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("localhost:2", "127.0.0.1:2"),
            (":3", "127.0.0.1:3"),
            ("0", "127.0.0.1:0"),
            ("[::1]:4", "[::1]:4"),
        ] {
            assert_eq!(address(text).expect(text).to_string(), expected);
        }
        assert!(address("nonsense").is_err());
        assert!(address("127.0.0.1:99999").is_err());
    }

    #[test]
    fn the_documented_files_are_read() {
        let documentation = include_str!("../../../docs/configuration.md");
        let blocks = documentation.split("```toml\n").skip(1).filter_map(|block| block.split("```").next());
        for block in blocks.chain([include_str!("../../../examples-services/functionsplatform.toml")]) {
            PlatformFlags::default().merge(file(block)).expect(block);
        }
    }

    #[test]
    fn every_flag_is_documented_with_its_key() {
        use clap::CommandFactory;
        let documentation = include_str!("../../../docs/configuration.md");
        let command = crate::flags::Cli::command();
        let up = command.find_subcommand("up").expect("a verb");
        for flag in up.get_arguments().filter_map(clap::Arg::get_long).filter(|flag| *flag != "config") {
            let row = format!("| `--{flag}` | `{}` |", flag.replace('-', "_"));
            assert!(documentation.contains(&row), "docs/configuration.md has no row {row}");
        }
    }
}
