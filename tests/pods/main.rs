//! One suite of pods for every runtime: what a pod does must not depend on what runs it.
//!
//! Each column starts the real binary, runs all scenarios of the table at the same time, then those that restart things, one
//! after the other. Where a scenario cannot be had on a runtime, the table says why.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says why it was skipped"
)]

mod apart;
mod attached;
mod cluster;
mod ephemeral;
mod files;
#[expect(dead_code, reason = "most of what is asked here are requests")]
#[path = "../e2e/harness.rs"]
mod harness;
mod images;
mod lives;
#[path = "../support/containerd.rs"]
mod machine;
mod messages;
mod network;
#[expect(dead_code, reason = "kubectl is not used here: requests are")]
#[path = "../e2e/nodes.rs"]
mod nodes;
mod numbered;
mod pressure;
mod probes;
#[path = "../e2e/relay.rs"]
mod relay;
mod restarts;
mod rotation;
mod settings;
#[expect(dead_code, reason = "of what servers need only the processes are used here")]
#[path = "../e2e/standalone.rs"]
mod standalone;
mod statuses;
mod storage;
mod streams;
mod volumes;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use apart::Apart;
use cluster::{Backend, Cluster, Column, Server};
use machine::Machine;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Names the scenarios of the table that shall run, and nothing else; [`NONE`]: nothing of the table, but what comes after it.
const ONLY: &str = "PODLOG_SCENARIO";
const NONE: &str = "none";

/// How many scenarios run at a time: two cores have to do with them.
const AT_A_TIME: usize = 8;

/// How long a scenario may take: each waits for many things.
const LONGEST: Duration = Duration::from_secs(900);

type Run = for<'a> fn(&'a Cluster) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A pod, and what must become of it.
struct Scenario {
    name: &'static str,
    /// `None`: on every runtime. Else only where there are containers, and why.
    needs_containers: Option<&'static str>,
    run: Run,
}

macro_rules! scenarios {
    ($($module:ident :: $function:ident $(, $why:literal)? ;)*) => {
        &[$(Scenario {
            name: stringify!($function),
            needs_containers: scenarios!(@why $($why)?),
            run: |cluster| Box::pin($module::$function(cluster)),
        }),*]
    };
    (@why $why:literal) => { Some($why) };
    (@why) => { None };
}

const SCENARIOS: &[Scenario] = scenarios! {
    lives::several_containers;
    lives::many_containers_with_long_names;
    lives::init_containers_take_turns;
    lives::a_failed_init_container_fails_the_pod;
    lives::sidecars_outlive_the_others;
    lives::a_crash_loop_backs_off;
    lives::dead_containers_are_collected;
    lives::hooks_run_around_a_container;
    lives::a_stubborn_container_is_killed_after_its_grace_period;
    lives::time_is_up;
    lives::nothing_is_left_of_a_deleted_pod;
    statuses::statuses_and_events_in_full;
    messages::last_words_of_a_file;
    messages::last_words_of_the_log;
    messages::memory_that_is_used_up, "a process has no cgroup of its own";
    probes::commands_decide;
    probes::http_decides;
    probes::a_socket_ends_the_start;
    probes::grpc_decides;
    ephemeral::somebody_looks_around;
    files::log_files_of_a_container;
    settings::users_and_rights;
    settings::capabilities, "a process keeps the capabilities of the user it runs as";
    settings::root_is_refused;
    settings::limits_of_the_cgroup, "a process has no cgroup of its own";
    settings::the_network_of_the_host;
    settings::environment;
    network::a_network_of_its_own, "processes share the host's network";
    volumes::volumes_of_every_kind;
    volumes::a_part_of_a_volume;
    volumes::files_follow_their_objects;
    storage::an_empty_dir_has_its_limit;
    storage::logs_take_room_too;
    storage::what_pods_use_is_told;
    streams::commands_in_containers;
    streams::files_are_copied;
    streams::ports_are_forwarded;
    attached::running_programs_are_heard;
    attached::running_programs_are_spoken_to;
    attached::programs_hear_one_after_the_other;
    attached::much_is_said_and_answered;
    attached::terminals_are_typed_at;
    attached::pods_are_run_to_be_spoken_to;
    images::images_that_cannot_be_had, "a process has no image";
    images::secrets_open_registries, "a process has no image";
};

#[test]
fn pods_on_processes() {
    run(Column::Process, Backend::None);
}

#[test]
fn pods_on_the_cri_server() {
    run(Column::CriServer, Backend::Server(Server::start()));
}

#[test]
fn pods_on_containerd() {
    let Some(machine) = Machine::start() else { return };
    network::configure(machine.path());
    run(Column::Containerd, Backend::Containerd(machine));
}

#[test]
fn a_full_disk_on_processes() {
    block_on(pressure::a_full_disk(Column::Process, Backend::None));
}

#[test]
fn a_full_disk_on_containerd() {
    let Some(machine) = Machine::start() else { return };
    block_on(pressure::a_full_disk(Column::Containerd, Backend::Containerd(machine)));
}

#[test]
fn short_memory_on_processes() {
    block_on(pressure::short_memory(Column::Process, Backend::None));
}

#[test]
fn short_memory_on_containerd() {
    let Some(machine) = Machine::start() else { return };
    block_on(pressure::short_memory(Column::Containerd, Backend::Containerd(machine)));
}

#[test]
fn unused_images_on_containerd() {
    let Some(machine) = Machine::start() else { return };
    block_on(pressure::unused_images(machine));
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

fn run(column: Column, backend: Backend) {
    block_on(async {
        let cluster = Cluster::start(column, backend).await;
        let mut cluster = together(cluster).await;
        if std::env::var(ONLY).is_ok_and(|only| only != NONE) {
            return;
        }
        // Alone: nobody else shall be in the way of a fast writer.
        rotation::every_line_through_rotations(&cluster).await;
        if column == Column::Containerd {
            cluster.restart_with_log_size(rotation::USUAL_MAX_BYTES).await;
            rotation::files_of_the_usual_size_stay_within_it(&cluster).await;
        }
        let backend = restarts::in_turn(cluster).await.into_backend();
        restarts::in_turn(Apart::start(column, backend).await).await;
    });
}

/// Runs the table; fails with the names of all that failed.
async fn together(cluster: Cluster) -> Cluster {
    let only = std::env::var(ONLY).unwrap_or_default();
    let (cluster, places) = (Arc::new(cluster), Arc::new(Semaphore::new(AT_A_TIME)));
    let mut running = JoinSet::new();
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.contains(&only)) {
        if let Some(why) = scenario.needs_containers.filter(|_| !cluster.column().has_containers()) {
            eprintln!("{:?}: {} does not apply: {why}", cluster.column(), scenario.name);
            continue;
        }
        let (cluster, places) = (Arc::clone(&cluster), Arc::clone(&places));
        running.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let begun = std::time::Instant::now();
            let scenario_done = tokio::spawn(async move {
                let in_time = tokio::time::timeout(LONGEST, (scenario.run)(&cluster)).await;
                in_time.unwrap_or_else(|_| panic!("{} does not end", scenario.name));
            });
            let done = scenario_done.await;
            eprintln!("{:5.1} s {}", begun.elapsed().as_secs_f64(), scenario.name);
            (scenario.name, done.is_ok())
        });
    }
    let mut failed: Vec<&str> = Vec::new();
    while let Some(done) = running.join_next().await {
        failed.extend(done.ok().filter(|(_, is_ok)| !is_ok).map(|(name, _)| name));
    }
    let cluster = Arc::into_inner(cluster).expect("every scenario has ended");
    assert!(failed.is_empty(), "{:?}: failed: {failed:?}", cluster.column());
    cluster
}
