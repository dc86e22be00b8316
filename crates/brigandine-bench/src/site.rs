//! `brigandine-bench site`: measures the costs of pages and API requests on a database of any size.
//!
//! The server is the real one, in a process of its own (see `server.rs`). Requests use connections that stay open.
//! Latency is measured at a steady rate that two cores can serve. Each connection has a schedule: if a request has to
//! wait for the previous answer, its time counts from its scheduled time, so a stall cannot hide by lowering the rate.
//! Throughput is measured without a schedule.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli::Site;
use crate::client::{Connection, request};
use crate::figures::{Figures, Row, UPDATES};
use crate::output::{Failure, failed, print_json};
use crate::process::{Server, program};
use crate::samples::Samples;
use crate::statistics::{median, milliseconds, percentile, sorted};
use brigandine::model;
use brigandine::{StateDir, store};

/// The most requests that `survey` sends, to count the entries of their answers. Each route is surveyed twice: before
/// and after it is measured.
const SURVEYED: usize = 32;
/// The most status updates of the bulk figure, and the most jobs of the registered evaluation.
const BULK_MAX: i64 = 100_000;

/// Makes sample builds if there are none, measures, and prints the figures.
///
/// # Errors
/// The state directory cannot be made or used, or an answer is wrong.
pub(crate) fn run(arguments: &Site) -> Result<(), Failure> {
    if !arguments.compare.is_empty() {
        return crate::growth::run(&arguments.compare, arguments.json);
    }
    if let Some(count) = arguments.startup {
        return crate::startup::run(arguments.state.as_deref(), count, arguments.json);
    }
    let temporary;
    let state = match &arguments.state {
        Some(state) => state.clone(),
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().join("state")
        }
    };
    let file = StateDir::new(&state).database();
    if !file.exists() {
        eprintln!("making {} sample builds", arguments.builds);
        let progress = |_: store::Step| ();
        store::make_sample(i64::from(arguments.builds), &state, model::now(), &progress)?;
    }
    let file_bytes = std::fs::metadata(&file)?.len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let samples = runtime.block_on(crate::samples::choose(&state))?;
    let mut server = start(&state)?;
    let figures = runtime.block_on(measure(arguments, &mut server, &samples, file_bytes))?;
    server.stop()?;
    if arguments.json {
        print_json(&figures);
    } else {
        figures.print();
    }
    Ok(())
}

/// Starts the measured server.
pub(crate) fn start(state: &Path) -> Result<Server, Failure> {
    let mut command = program(&["server", "--state"])?;
    command.arg(state);
    Server::start(command)
}

/// Requests of one kind.
#[derive(Clone)]
struct Route {
    name: &'static str,
    requests: Vec<Vec<u8>>,
    /// Requests per second.
    rate: f64,
    /// A text that every answer contains.
    holds: &'static str,
    /// A text that an answer contains once for each entry that it lists.
    counts: &'static str,
}

/// A value of a query, percent-encoded.
fn escaped(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

/// A text that each build in a JSON list has once.
const BUILD: &str = "\"buildstatus\":";
/// A text that each row of a page has once.
const ROW: &str = "<li class=\"row";

/// The routes that are measured, with requests for the samples.
fn routes(samples: &Samples) -> Vec<Route> {
    let route = |name, rate, holds, counts, requests| Route { name, requests, rate, holds, counts };
    let json = |name, rate, requests| route(name, rate, BUILD, BUILD, requests);
    let page = |name, rate, counts, requests| route(name, rate, "</html>", counts, requests);
    let one = |path: &str, page| vec![request(path, page)];
    let of = |path: &str, ids: &[i64], page| -> Vec<_> {
        ids.iter().map(|id| request(&format!("{path}{id}"), page)).collect()
    };
    let ids: Vec<i64> = samples.builds.iter().map(|(id, _)| *id).collect();
    let of_jobs = samples.jobs.iter().map(|job| {
        let path = format!(
            "/api/latestbuilds?nr=10&job={}&system={}&jobset={}",
            escaped(&job.name),
            escaped(&job.system),
            escaped(&job.specification)
        );
        request(&path, false)
    });
    let basenames = samples.builds.iter().map(|(_, basename)| {
        let basename = escaped(basename).replace('+', "%20");
        request(&format!("/build/{basename}"), false)
    });
    let names = samples.specifications.iter();
    let of_names = names.map(|name| request(&format!("/jobset/{name}"), true)).collect();
    let of_histories = samples.jobs.iter().map(|job| {
        let name = escaped(&job.name).replace('+', "%20");
        request(&format!("/job/{}/{name}", job.specification), true)
    });
    let of_histories = of_histories.collect();
    let names = samples.specifications.iter();
    let of_grids = names.map(|name| request(&format!("/jobset/{name}/grid"), true)).collect();
    let search = |words: String| request(&format!("/search?query={}", escaped(&words)), true);
    let of_searches = samples.jobs.iter().map(|job| {
        search(format!("spec:{} job:{} system:{}", job.specification, job.name, job.system))
    });
    let of_searches = of_searches.collect();
    let small = format!("/api/latestbuilds?nr=10&jobset={}", escaped(&samples.small.name));
    let checkouts = "\"checkouts\":";
    let evaluations = of("/api/evaluation?id=", &samples.evaluations, false);
    let specifications = one("/specifications", false);
    let history = samples.builds_of_jobs();
    vec![
        json("latestbuilds?nr=2", 400.0, one("/api/latestbuilds?nr=2", false)),
        json("latestbuilds?nr=10&job&system&jobset", 400.0, of_jobs.collect()),
        json("latestbuilds?nr=10&jobset (small)", 400.0, one(&small, false)),
        json("build/ID", 400.0, of("/build/", &ids, false)),
        json("build/BASENAME.drv", 400.0, basenames.collect()),
        // A page has a `rect` for each build of the job's history.
        page("build/ID (page)", 400.0, "<rect class=", of("/build/", &history, true)),
        route("api/evaluation?id", 400.0, checkouts, checkouts, evaluations),
        page("job/NAME/JOB", 200.0, ROW, of_histories),
        page("jobset/NAME/grid", 50.0, "<th scope=\"row\">", of_grids),
        page("search (page)", 50.0, ROW, of_searches),
        page("eval/ID (page)", 200.0, ROW, of("/eval/", &samples.evaluations, true)),
        page("jobset/NAME", 200.0, "<a href=\"/eval/", of_names),
        page("/", 200.0, ROW, one("/", true)),
        json("queue?nr=200", 50.0, one("/api/queue?nr=200", false)),
        json("latestbuilds?nr=1000", 20.0, one("/api/latestbuilds?nr=1000", false)),
        route("specifications", 200.0, "\"proc\":", "\"proc-file\":", specifications),
        // More often than monitors ask.
        route("metrics", 20.0, "# TYPE ", "# TYPE ", one("/metrics", false)),
    ]
}

/// Sends some of the route's requests. Appends to `seen`, for each answer, its number of entries and its length.
async fn survey(
    address: &str,
    route: &Route,
    seen: &mut Vec<(usize, usize)>,
) -> Result<(), Failure> {
    let mut connection = Connection::open(address).await?;
    let step = route.requests.len().div_ceil(SURVEYED).max(1);
    for request in route.requests.iter().step_by(step) {
        let answer = connection.ask(request).await?;
        seen.push((count(answer, route.counts.as_bytes()), answer.len()));
    }
    Ok(())
}

/// How many times `text` contains `part`, which is not empty.
fn count(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).filter(|window| *window == part).count()
}

/// One run of a route: the sorted latencies in milliseconds, and the run's duration.
struct Run {
    latencies: Vec<f64>,
    seconds: f64,
}

/// Sends requests for `time` over `connections`, at the route's rate or, with `flat_out`, without pauses.
async fn ask(
    address: &str,
    route: &Route,
    connections: usize,
    time: Duration,
    flat_out: bool,
) -> Result<Run, Failure> {
    let mut tasks = tokio::task::JoinSet::new();
    let began = Instant::now() + Duration::from_millis(20);
    for number in 0..connections {
        let mut connection = Connection::open(address).await?;
        let route = route.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let pause = Duration::from_secs_f64(connections as f64 / route.rate);
            let mut due = began + pause.mul_f64(number as f64 / connections as f64);
            let mut at = number * 37;
            let holds = route.holds.as_bytes();
            loop {
                let mut start = Instant::now();
                if !flat_out {
                    if start < due {
                        tokio::time::sleep_until(due.into()).await;
                        start = Instant::now();
                    } else {
                        // The previous answer was late, so this request counts from its scheduled time.
                        start = due;
                    }
                    due += pause;
                }
                if start.saturating_duration_since(began) >= time {
                    return Ok::<_, std::io::Error>(latencies);
                }
                let request = &route.requests[at % route.requests.len()];
                at += connections * 37 + 1;
                let answer = connection.ask(request).await?;
                latencies.push(milliseconds(start.elapsed()));
                // Only some answers are checked, because the load generator shares the cores with the server.
                if latencies.len() % 16 == 1 && !contains(answer, holds) {
                    return Err(std::io::Error::other(format!(
                        "{}: an answer does not hold {}",
                        route.name, route.holds
                    )));
                }
            }
        });
    }
    let mut all = Vec::new();
    while let Some(latencies) = tasks.join_next().await {
        all.append(&mut latencies??);
    }
    if all.is_empty() {
        return Err(failed(format!("{}: nothing was answered in time", route.name)));
    }
    Ok(Run { latencies: sorted(all), seconds: began.elapsed().as_secs_f64() })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    // Pages have the text at the end, and lists at the beginning.
    let (head, tail) = (&text[..text.len().min(2048)], &text[text.len().saturating_sub(64)..]);
    [head, tail].iter().any(|text| text.windows(part.len()).any(|window| window == part))
}

struct Plan {
    connections: usize,
    time: Duration,
    repeat: u32,
}

/// Measures a route `plan.repeat` times, and returns the medians.
async fn row(
    server: &Server,
    plan: &Plan,
    route: &Route,
    load: &'static str,
    flat_out: bool,
) -> Result<Row, Failure> {
    let mut runs: Vec<[f64; 6]> = Vec::new();
    let mut seen = Vec::new();
    survey(&server.address, route, &mut seen).await?;
    for _ in 0..plan.repeat {
        let cpu = server.processor_s();
        let run = ask(&server.address, route, plan.connections, plan.time, flat_out).await?;
        let count = run.latencies.len() as f64;
        runs.push([
            count,
            count / run.seconds,
            percentile(&run.latencies, 50),
            percentile(&run.latencies, 99),
            percentile(&run.latencies, 100),
            (server.processor_s() - cpu) * 1000.0 / count,
        ]);
    }
    survey(&server.address, route, &mut seen).await?;
    let (mut listed, mut bytes): (Vec<_>, Vec<_>) = seen.into_iter().unzip();
    listed.sort_unstable();
    bytes.sort_unstable();
    let of = |at: usize| median(runs.iter().map(|run| run[at]).collect());
    Ok(Row {
        request: route.name,
        load,
        requests: of(0) as usize,
        per_s: of(1),
        p50_ms: of(2),
        p99_ms: of(3),
        max_ms: of(4),
        server_cpu_ms: of(5),
        different: route.requests.len(),
        listed: listed[listed.len() / 2],
        answer_bytes: bytes[bytes.len() / 2],
    })
}

#[expect(
    clippy::too_many_lines,
    reason = "the measurements in the order in which they are made: each leaves the server as the next needs it"
)]
async fn measure(
    arguments: &Site,
    server: &mut Server,
    samples: &Samples,
    file_bytes: u64,
) -> Result<Figures, Failure> {
    let first_page_ms = server.first_page_ms()?;
    let (routes, builds) = (routes(samples), samples.highest);
    if let Some(route) = routes.iter().find(|route| route.requests.is_empty()) {
        return Err(failed(format!("{}: the database has nothing to ask about", route.name)));
    }
    server.tell(&format!("history {}", samples.history))?;
    let plan = Plan {
        connections: usize::from(arguments.connections),
        time: Duration::from_secs_f64(arguments.seconds),
        repeat: arguments.repeat,
    };
    let warm = Plan { connections: plan.connections, time: plan.time / 2, repeat: 1 };
    let named = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|only| name.contains(only.as_str()))
    };
    let wanted = |route: &&Route| named(route.name);
    let by_name = |name: &str| routes.iter().find(|route| route.name == name);
    let mut rows = Vec::new();
    for route in routes.iter().filter(wanted) {
        eprintln!("{}", route.name);
        row(server, &warm, route, "", false).await?;
        rows.push(row(server, &plan, route, "idle", false).await?);
    }
    if let Some(route) = by_name("build/ID").filter(|route| wanted(route)) {
        eprintln!("{}, as fast as it goes", route.name);
        rows.push(row(server, &plan, route, "itself", true).await?);
    }
    if let (Some(slow), Some(quick)) = (by_name("latestbuilds?nr=1000"), by_name("specifications"))
        && wanted(&quick)
    {
        eprintln!("{} while {} runs", quick.name, slow.name);
        let (address, slow) = (server.address.clone(), slow.clone());
        let time = plan.time * plan.repeat * 2;
        let busy = tokio::spawn(async move { ask(&address, &slow, 1, time, true).await });
        rows.push(row(server, &plan, quick, "nr=1000", false).await?);
        busy.abort();
    }
    let loaded: Vec<_> = routes.iter().filter(wanted).collect();
    let mut updates_per_s_under_load = None;
    if !loaded.is_empty() {
        // Each build gets two updates. A quarter more than planned covers the time between the runs.
        let seconds = (plan.time * plan.repeat).as_secs_f64() * loaded.len() as f64;
        let updates = (seconds * 1.25 + 1.0) * UPDATES as f64;
        server.tell(&format!("stock {}", (updates / 2.0) as u64))?;
        server.tell("updated")?;
        server.tell(&format!("updates {UPDATES}"))?;
        let began = Instant::now();
        for route in loaded {
            eprintln!("{} under {UPDATES} updates per second", route.name);
            rows.push(row(server, &plan, route, "2000 updates", false).await?);
        }
        updates_per_s_under_load = Some(server.number("updated")? / began.elapsed().as_secs_f64());
        server.tell("updates 0")?;
    }
    let memory_mib = server.memory_mib("VmRSS");
    let bulk = builds.min(BULK_MAX);
    let mut bulk_updates_per_s = None;
    if named("bulk") {
        eprintln!("{bulk} status updates in bulk");
        bulk_updates_per_s = Some(bulk as f64 / server.number(&format!("bulk {bulk}"))?);
    }
    let mut registration_s = None;
    if named("register") {
        eprintln!("{bulk} jobs of one evaluation");
        server.send(&format!("register {bulk}"))?;
        if let Some(route) = by_name("build/ID") {
            // The run ends with the registration, or soon after.
            let once = Plan {
                repeat: 1,
                time: Duration::from_secs_f64(arguments.seconds.max(bulk as f64 / 40_000.0)),
                ..plan
            };
            rows.push(row(server, &once, route, "registration", false).await?);
        }
        registration_s = Some(server.line()?.parse::<f64>()?);
    }
    Ok(Figures {
        builds,
        file_mib: file_bytes as f64 / f64::from(1 << 20),
        small_jobset: samples.small.name.clone(),
        small_jobset_builds: samples.small.finished,
        notes: samples.notes.clone(),
        first_page_ms,
        rows,
        updates_per_s_under_load,
        bulk_updates_per_s,
        registered_jobs: bulk,
        registration_s,
        registrations_per_s: registration_s.map(|seconds| bulk as f64 / seconds),
        memory_mib,
        memory_end_mib: server.memory_mib("VmRSS"),
        memory_peak_mib: server.memory_mib("VmHWM"),
        repeat: arguments.repeat,
    })
}
