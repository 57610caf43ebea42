use super::*;

fn parse(fields: &str) -> Result<(KubeletConfiguration, Vec<String>), ConfigError> {
    KubeletConfiguration::parse(&format!("kind: {KIND}\napiVersion: {API_VERSION}\n{fields}"))
}

#[test]
fn fields_that_work() {
    let (config, warnings) = parse(
        "containerLogMaxSize: 1Mi\ncontainerLogMaxFiles: 3\npodLogsDir: /var/log/pods\naddress: 127.0.0.1\n\
         port: 10250\nmaxPods: 5\nsyncFrequency: 30s\n\
         authentication: {x509: {clientCAFile: /ca.crt}, anonymous: {enabled: true}}\n\
         authorization: {mode: AlwaysAllow, webhook: {cacheAuthorizedTTL: 1m}}\n\
         crashLoopBackOff: {maxContainerRestartPeriod: 20s}\n",
    )
    .unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.container_log_max_bytes, Some(1 << 20));
    assert_eq!(config.container_log_max_files, 3);
    assert_eq!(config.pod_logs_dir, Some("/var/log/pods".into()));
    assert_eq!((config.address, config.port), (Some([127, 0, 0, 1].into()), Some(10250)));
    assert_eq!((config.max_pods, config.sync_frequency), (5, Duration::from_secs(30)));
    assert_eq!(config.authentication.client_ca_file, Some("/ca.crt".into()));
    assert!(config.authentication.anonymous_enabled && config.authentication.webhook_enabled);
    assert_eq!(config.authorization.mode, AuthorizationMode::AlwaysAllow);
    assert_eq!(config.authorization.cache_authorized_ttl, Duration::from_secs(60));
    assert_eq!(config.max_container_restart_period, Duration::from_secs(20));
}

#[test]
fn json_is_yaml_and_defaults_are_upstreams() {
    let text = format!(r#"{{"kind":"{KIND}","apiVersion":"{API_VERSION}"}}"#);
    let (config, _) = KubeletConfiguration::parse(&text).unwrap();
    assert_eq!(config, KubeletConfiguration::default());
}

#[test]
fn a_negative_size_never_rotates() {
    assert_eq!(parse("containerLogMaxSize: -1\n").unwrap().0.container_log_max_bytes, None);
}

#[test]
fn what_is_kept_of_logs_can_be_chosen() {
    let fields = "containerLogPolicy: drop-oldest\ncontainerLogBufferSize: 4Mi\n\
                  containerLogLinesPerSecond: 1000\ncontainerLogBytesPerSecond: 1M\ncontainerLogMaxRecordSize: 32Ki\n";
    let expected = LogPolicy {
        back_pressure: podlog_container::BackPressure::DropOldest,
        buffer_bytes: 4 << 20,
        lines_per_second: 1000,
        bytes_per_second: 1_000_000,
        max_record_bytes: 32 << 10,
    };
    assert_eq!(parse(fields).unwrap().0.container_log_policy, expected);
    assert_eq!(parse("").unwrap().0.container_log_policy, LogPolicy::default());
    for (fields, path) in [
        ("containerLogPolicy: drop\n", "containerLogPolicy"),
        ("containerLogBufferSize: -1\n", "containerLogBufferSize"),
    ] {
        assert!(
            matches!(parse(fields), Err(ConfigError::Value { path: found, .. }) if found == path),
            "{fields}"
        );
    }
}

#[test]
fn journals_can_be_chosen() {
    let journal = |fields: &str| parse(fields).unwrap().0.container_log_journal;
    assert_eq!(journal(""), JournalFiles::default());
    assert!(journal("containerLogJournalDirectories: []\n").directories.is_empty());
    let chosen = journal("containerLogJournalDirectories: [/j]\ncontainerLogJournalSocket: /s\n");
    assert_eq!(chosen, JournalFiles { directories: vec!["/j".into()], socket: "/s".into() });
    assert!(matches!(
        parse("containerLogJournalDirectories: /j\n"),
        Err(ConfigError::Value { path, .. }) if path == "containerLogJournalDirectories"
    ));
}

#[test]
fn what_is_kept_of_deleted_pods_can_be_chosen() {
    let kept = |fields: &str| {
        let config = parse(fields).unwrap().0;
        (config.deleted_pod_log_max_bytes, config.deleted_pod_log_max_age.as_secs())
    };
    assert_eq!(kept(""), (1 << 30, 24 * 3600));
    assert_eq!(kept("deletedPodLogMaxSize: 5Mi\ndeletedPodLogMaxAge: 90m\n"), (5 << 20, 5400));
    assert_eq!(kept("deletedPodLogMaxSize: 0\ndeletedPodLogMaxAge: 0s\n"), (0, 0));
    for fields in ["deletedPodLogMaxSize: -1\n", "deletedPodLogMaxAge: 1 day\n"] {
        assert!(matches!(parse(fields), Err(ConfigError::Value { .. })), "{fields}");
    }
}

#[test]
fn eviction_and_image_collection_can_be_chosen() {
    let fields = "evictionHard: {nodefs.available: 1Gi}\nevictionSoft: {memory.available: 10%}\n\
                  evictionSoftGracePeriod: {memory.available: 1m}\nevictionMaxPodGracePeriod: 20\n\
                  evictionPressureTransitionPeriod: 1s\nevictionMinimumReclaim: {nodefs.available: 10Mi}\n\
                  imageGCHighThresholdPercent: 60\nimageGCLowThresholdPercent: 50\nimageMaximumGCAge: 1h\n";
    let (config, warnings) = parse(fields).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let [soft, hard] = config.eviction.thresholds[..] else { panic!("{:?}", config.eviction) };
    assert_eq!((soft.signal, soft.grace), (Signal::MemoryAvailable, Duration::from_secs(60)));
    assert_eq!((hard.is_hard(), hard.min_reclaim), (true, Some(Threshold::Amount(10 << 20))));
    assert_eq!(config.eviction.max_pod_grace_seconds, 20);
    assert_eq!(config.eviction.pressure_transition_period, Duration::from_secs(1));
    let gc = config.image_gc;
    assert_eq!((gc.high_percent, gc.low_percent, gc.maximum_age), (60, 50, Some(Duration::from_secs(3600))));
    assert_eq!(parse("").unwrap().0.eviction, Eviction::default());
}

#[test]
fn ended_containers_have_limits() {
    let check = |fields: &str, expected: (Option<usize>, Option<usize>, u64)| {
        let dead = parse(fields).unwrap().0.dead_containers;
        assert_eq!((dead.per_container, dead.total, dead.minimum_age.as_secs()), expected, "{fields}");
    };
    check("", (Some(1), None, 0));
    check("maximumDeadContainersPerContainer: 0\nmaximumDeadContainers: 7\n", (Some(0), Some(7), 0));
    check("maximumDeadContainersPerContainer: -1\nminimumContainerTTLDuration: 1m\n", (None, None, 60));
}

#[test]
fn objects_are_watched_or_looked_at() {
    for (strategy, expected) in [
        ("Watch", Ok(ChangeDetection::Watch)),
        ("Cache", Ok(ChangeDetection::Look)),
        ("Get", Ok(ChangeDetection::Look)),
        (
            "watch",
            Err(
                "configMapAndSecretChangeDetectionStrategy: unknown configmap and secret manager mode: watch",
            ),
        ),
    ] {
        let found = parse(&format!("configMapAndSecretChangeDetectionStrategy: {strategy}\n"));
        let found = found.map(|(config, _)| config.change_detection).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned));
    }
}

#[test]
fn fields_without_effect_are_named() {
    let (_, warnings) = parse("cgroupDriver: systemd\nkernelMemcgNotification: true\n").unwrap();
    assert_eq!(
        warnings,
        [
            "cgroupDriver has no effect here: podlog's kubelet does not use it",
            "kernelMemcgNotification has no effect here: podlog's kubelet does not use it",
        ]
    );
}

#[test]
fn what_is_wrong_is_refused() {
    for (fields, expected) in [
        ("containerLogMaxSze: 1Mi\n", r#"strict decoding error: unknown field "containerLogMaxSze""#),
        (
            "authentication: {x509: {caFile: /x}}\nfoo: 1\n",
            r#"strict decoding error: unknown field "authentication.x509.caFile", unknown field "foo""#,
        ),
        ("containerLogMaxFiles: 1\n", "invalid configuration: containerLogMaxFiles must be greater than 1"),
        (
            "containerLogMaxFiles: 0\nmaxPods: -1\n",
            "[invalid configuration: containerLogMaxFiles must be greater than 1, invalid configuration: maxPods \
             (--max-pods) -1 must not be a negative number]",
        ),
        (
            "port: 70000\n",
            "invalid configuration: port (--port) 70000 must be between 1 and 65535, inclusive",
        ),
        ("evictionHard: {disk: 1Gi}\n", "invalid configuration: unsupported eviction signal disk"),
        (
            "imageGCHighThresholdPercent: 50\n",
            "invalid configuration: imageGCLowThresholdPercent (--image-gc-low-threshold) 80 must be less than \
             imageGCHighThresholdPercent (--image-gc-high-threshold) 50",
        ),
        ("podLogsDir: logs\n", r#"invalid configuration: pod logs path "logs" must be absolute path"#),
        ("podLogsDir: /a/../b\n", r#"invalid configuration: pod logs path "/a/../b" must be normalized"#),
        ("podLogsDir: /é\n", "invalid configuration: pod logs path must contains ASCII characters only"),
        ("syncFrequency: soon\n", r#"syncFrequency: time: invalid duration "soon""#),
        ("maxPods: many\n", r#"maxPods: invalid type: string "many", expected i32"#),
        ("authorization: {mode: Maybe}\n", "authorization.mode: unknown authorization mode Maybe"),
        (
            "nodeLeaseDurationSeconds: 0\n",
            "invalid configuration: nodeLeaseDurationSeconds must be greater than 0",
        ),
        (
            "crashLoopBackOff: {maxContainerRestartPeriod: 400s}\n",
            "invalid configuration: CrashLoopBackOff.MaxContainerRestartPeriod (got: 400 seconds) must be set \
             between 1s and 300s",
        ),
    ] {
        assert_eq!(parse(fields).unwrap_err().to_string(), expected, "{fields}");
    }
}

#[test]
fn other_documents_are_refused() {
    for text in ["kind: Pod\napiVersion: v1\n", "{}", "- 1", ": :"] {
        assert!(KubeletConfiguration::parse(text).is_err(), "{text}");
    }
}

#[test]
fn flags_take_the_place_of_fields() {
    let text = format!(
        "kind: {KIND}\napiVersion: {API_VERSION}\nmaxPods: 5\nport: 1\nauthentication: {{x509: {{clientCAFile: /a}}}}\n"
    );
    let overrides = [
        ("maxPods", 7.into()),
        ("authentication.x509.clientCAFile", "/b".into()),
        ("staticPodPath", "".into()),
    ];
    let (config, _) = KubeletConfiguration::parse_with(&text, &overrides).unwrap();
    assert_eq!((config.max_pods, config.port), (7, Some(1)));
    assert_eq!(config.authentication.client_ca_file, Some("/b".into()));
    assert_eq!(config.static_pod_path, None);
    assert_eq!(config.source["maxPods"], 7, "/configz shows what counts");
    let (config, _) =
        KubeletConfiguration::of_flags(&[("authorization.mode", "AlwaysAllow".into())]).unwrap();
    assert_eq!(config.authorization.mode, AuthorizationMode::AlwaysAllow);
    assert!(KubeletConfiguration::of_flags(&[("nonsense", 1.into())]).is_err());
}
