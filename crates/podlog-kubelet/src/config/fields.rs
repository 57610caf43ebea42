//! Which fields of `KubeletConfiguration` there are, and which of them do something here.

/// What a field is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// It has its upstream effect.
    Works,
    /// Its children are listed on their own.
    Group,
    /// It exists upstream and has no effect here.
    Elsewhere,
}

/// Looks a dotted path up.
pub(super) fn support(path: &str) -> Option<Support> {
    if GROUPS.contains(&path) {
        Some(Support::Group)
    } else if WORKING.contains(&path) {
        Some(Support::Works)
    } else if ELSEWHERE.contains(&path) {
        Some(Support::Elsewhere)
    } else {
        None
    }
}

const GROUPS: &[&str] = &[
    "authentication",
    "authentication.anonymous",
    "authentication.webhook",
    "authentication.x509",
    "authorization",
    "authorization.webhook",
    "crashLoopBackOff",
];

const WORKING: &[&str] = &[
    "address",
    "apiVersion",
    "authentication.anonymous.enabled",
    "authentication.webhook.cacheTTL",
    "authentication.webhook.enabled",
    "authentication.x509.clientCAFile",
    "authorization.mode",
    "authorization.webhook.cacheAuthorizedTTL",
    "authorization.webhook.cacheUnauthorizedTTL",
    "clusterDomain",
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogBufferSize",
    "containerLogBytesPerSecond",
    "containerLogJournalDirectories",
    "containerLogJournalSocket",
    "containerLogLinesPerSecond",
    "containerLogMaxFiles",
    "containerLogMaxRecordSize",
    "containerLogMaxSize",
    "containerLogPolicy",
    "containerRuntimeEndpoint",
    "crashLoopBackOff.maxContainerRestartPeriod",
    "deletedPodLogMaxAge",
    "deletedPodLogMaxSize",
    "enableDebuggingHandlers",
    "enableSystemLogHandler",
    "evictionHard",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "fileCheckFrequency",
    "healthzBindAddress",
    "healthzPort",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMaximumGCAge",
    "imageMinimumGCAge",
    "kind",
    "localStorageCapacityIsolation",
    "maxPods",
    "maximumDeadContainers",
    "maximumDeadContainersPerContainer",
    "mergeDefaultEvictionSettings",
    "minimumContainerTTLDuration",
    "nodeLeaseDurationSeconds",
    "nodeStatusReportFrequency",
    "nodeStatusUpdateFrequency",
    "podLogsDir",
    "port",
    "providerID",
    "registerNode",
    "registerWithTaints",
    "rotateCertificates",
    "runtimeRequestTimeout",
    "serverTLSBootstrap",
    "staticPodPath",
    "syncFrequency",
    "tlsCertFile",
    "tlsPrivateKeyFile",
];

const ELSEWHERE: &[&str] = &[
    "allowedUnsafeSysctls",
    "cgroupDriver",
    "cgroupRoot",
    "cgroupsPerQOS",
    "clusterDNS",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "contentType",
    "cpuCFSQuota",
    "cpuCFSQuotaPeriod",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "draManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableProfilingHandler",
    "enableServer",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "eventBurst",
    "eventRecordQPS",
    "failCgroupV1",
    "failSwapOn",
    "featureGates",
    "hairpinMode",
    "httpCheckFrequency",
    "imagePullCredentialsVerificationPolicy",
    "imageServiceEndpoint",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReserved",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "maxParallelImagePulls",
    "memoryManagerPolicy",
    "memoryReservationPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "nodeStatusMaxImages",
    "oomScoreAdj",
    "podCIDR",
    "podPidsLimit",
    "podsPerCore",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "qosReserved",
    "readOnlyPort",
    "registryBurst",
    "registryPullQPS",
    "reservedMemory",
    "reservedSystemCPUs",
    "resolvConf",
    "runOnce",
    "seccompDefault",
    "serializeImagePulls",
    "showHiddenMetricsForVersion",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "staticPodURL",
    "staticPodURLHeader",
    "streamingConnectionIdleTimeout",
    "systemCgroups",
    "systemReserved",
    "systemReservedCgroup",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_listed_once_and_in_order() {
        for list in [GROUPS, WORKING, ELSEWHERE] {
            assert!(list.is_sorted(), "{list:?}");
        }
        for path in ELSEWHERE {
            assert!(!WORKING.contains(path), "{path}");
        }
    }
}
