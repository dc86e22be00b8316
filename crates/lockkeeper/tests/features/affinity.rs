//! Threads on a processor of their own.
#![cfg(target_os = "linux")]

use lockkeeper::queue::Worker;

/// The processors on which this thread may run (`proc_pid_status(5)`).
fn allowed() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("the list").trim().to_owned()
}

#[test]
fn a_worker_runs_on_its_processor_alone() {
    // The last processor in the list of those that this thread may use. If the list is "0-3,8", that is 8.
    let all = allowed();
    let last = all.rsplit([',', '-']).next().expect("a number").to_owned();
    let cpu = last.parse().expect("a number");
    let build = || Ok::<_, std::convert::Infallible>(());
    let worker = Worker::builder("pinned").pin_to_cpu(cpu).blocking_spawn(build).expect("a worker");
    assert_eq!(worker.blocking_call(|()| allowed()).expect("a call"), last);
    // Neither another worker's thread nor this thread is pinned.
    let free: Worker<()> = Worker::builder("free").blocking_spawn(build).expect("a worker");
    assert_eq!(free.blocking_call(|()| allowed()).expect("a call"), all);
    assert_eq!(allowed(), all);
}
