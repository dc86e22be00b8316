//! Why builds were canceled, not run, and tried again: what is told after random steps, against what was noted when each
//! step happened.

use std::collections::BTreeMap;

use super::*;
use crate::config::Web;
use crate::model::{Actor, Asked, BuildId, BuildLogFile, Change, Target};
use crate::site::harness::{Served, served_with};
use crate::store::{Begun, Finish, NewJob};

/// A small pseudo-random generator that gives the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    /// One of some things; `None`: there are none.
    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.roll(of.len())].clone()) }
    }
}

const ACTORS: [&str; 3] = ["alice", "bob", "carol"];
const EVALUATIONS: i64 = 8;

/// What was noted of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Noted {
    /// The attempts that came to no end, the first of them first.
    lost: Vec<i64>,
    /// Who had it started again, the latest first.
    restarts: Vec<String>,
    /// Why it is canceled, or whose result it has.
    end: Option<String>,
}

impl Noted {
    /// The sentences.
    fn told(&self) -> Vec<String> {
        let skipped = self.lost.len().saturating_sub(ATTEMPTS);
        let lost = self.lost[skipped..].iter();
        let restarts = self.restarts.iter().take(ATTEMPTS);
        lost.map(|number| format!("Attempt {number} did not count"))
            .chain(restarts.map(|by| format!("It was started again because {by} asked for it")))
            .chain(self.end.clone())
            .collect()
    }
}

/// Two specifications whose evaluations share derivations.
struct World {
    served: Served,
    now: i64,
    noted: BTreeMap<BuildId, Noted>,
    /// Why the attempt of a running build is to be canceled, and whether somebody asked for that of the build itself.
    asked: BTreeMap<BuildId, (bool, String)>,
}

impl World {
    async fn new(dice: &mut Dice) -> Self {
        let specification = |id: i64| {
            format!(
                "INSERT INTO specification VALUES ({id}, 's{id}', '{{\"name\":\"s{id}\",\"inputs\":[],
                   \"evaluator\":{{\"kind\":\"jobs\",\"file\":\"f\"}}}}', 1, 0, 0, '', 0, 0, 0, 0, NULL);"
            )
        };
        let fill = specification(1) + &specification(2);
        let served = served_with(&fill, Web::default()).await;
        let world = Self { served, now: 1000, noted: BTreeMap::new(), asked: BTreeMap::new() };
        for number in 1..=EVALUATIONS {
            world.evaluate(dice, number).await;
        }
        world
    }

    async fn evaluate(&self, dice: &mut Dice, number: i64) {
        let mut jobs: Vec<NewJob> = Vec::new();
        for place in 0..6 {
            let derivation = format!("{}.drv", dice.roll(14));
            if jobs.iter().any(|job| job.derivation == derivation) {
                continue;
            }
            let needs = match dice.roll(4) {
                0 if !jobs.is_empty() => vec![("it".to_owned(), dice.roll(jobs.len()))],
                _ => Vec::new(),
            };
            jobs.push(NewJob {
                name: format!("job-{place}"),
                derivation,
                system: "x86_64-linux".to_owned(),
                nix_name: "n".to_owned(),
                priority: 0,
                timeout_s: 0,
                max_silent_s: 0,
                definition: Some(
                    r#"{"version":1,"name":"n","command":[],"environment":{},"system":"s","sources":[],"needs":{},"products":[]}"#
                        .to_owned(),
                ),
                needs,
            });
        }
        let write = self.served.database.write(move |tx| {
            let of = crate::model::SpecificationId::new(number % 2 + 1);
            let stamp = format!("stamp {number}");
            let begun = store::begin_evaluation(tx, of, &stamp, &[], "", number)?;
            let Begun::New(id) = begun else { panic!("{begun:?}") };
            assert!(store::register(tx, id, &jobs, "", "", number)?.is_some());
            Ok(())
        });
        write.await.expect("registered");
    }

    /// All builds, in the order of their numbers.
    async fn builds(&self) -> Vec<Build> {
        let read = self.served.database.read(|s| {
            let mut all = Vec::new();
            while let Some(build) = store::build(s, BuildId::new(all.len() as i64 + 1))? {
                all.push(build);
            }
            Ok(all)
        });
        read.await.expect("reads")
    }

    fn note(&mut self, id: BuildId) -> &mut Noted {
        self.noted.entry(id).or_default()
    }

    /// A step. `before`: all builds.
    async fn step(&mut self, dice: &mut Dice, before: &[Build]) {
        self.now += 1;
        let with = |status| -> Vec<Build> {
            before.iter().filter(|build| build.status == status).cloned().collect()
        };
        let running = with(BuildStatus::Started);
        let mut ready = with(BuildStatus::Scheduled);
        ready.retain(|build| build.waiting == 0);
        match dice.roll(12) {
            0..=3 => {
                let Some(build) = dice.pick(&ready) else { return };
                let now = self.now;
                let write =
                    self.served.database.write(move |tx| store::start(tx, build.id, "w", now));
                assert!(write.await.expect("written").is_some());
            }
            4..=6 => {
                let Some(build) = dice.pick(&running) else { return };
                let status = [
                    BuildStatus::Succeeded,
                    BuildStatus::Failed,
                    BuildStatus::FailedOther,
                    BuildStatus::Canceled,
                ][dice.roll(4)];
                self.end(&build, status, before).await;
            }
            7 => {
                let Some(build) = dice.pick(&running) else { return };
                self.lose(&build).await;
            }
            8 | 9 => {
                let Some(build) = dice.pick(before) else { return };
                self.cancel(dice, &build).await;
            }
            10 => {
                let number = dice.roll(usize::try_from(EVALUATIONS).expect("few"));
                let id = EvaluationId::new(i64::try_from(number).expect("few") + 1);
                let by = ACTORS[dice.roll(3)];
                let end = format!("It was canceled with #{id}, because {by} asked for it");
                let message = format!("canceled with evaluation {id}");
                self.ask(Change::Cancel, Target::Evaluation(id), by).await;
                self.unwanted(before, &end, &message).await;
            }
            _ => self.restart_or_supersede(dice, before).await,
        }
    }

    /// A running build ends; builds of the same derivation may get its result.
    async fn end(&mut self, build: &Build, status: BuildStatus, before: &[Build]) {
        let end = Finish {
            id: build.id,
            attempt: build.attempt,
            status,
            message: String::new(),
            stopped_at: self.now,
            log: BuildLogFile::default(),
            outputs: Vec::new(),
            products: Vec::new(),
        };
        let write = self.served.database.write(move |tx| store::finish(tx, &end));
        assert!(!write.await.expect("written").is_empty());
        let after = self.builds().await;
        for (was, is) in before.iter().zip(&after) {
            let by_itself = [BuildStatus::Succeeded, BuildStatus::Failed].contains(&status);
            let adopts = was.id != build.id
                && was.status == BuildStatus::Scheduled
                && was.derivation == build.derivation
                && by_itself
                && is.status == status;
            if adopts {
                let end = format!("It was not run: it has the result of #{}", build.id);
                self.note(is.id).end = Some(end);
            }
        }
        self.ended(build, &after);
    }

    /// The worker of a running build is gone.
    async fn lose(&mut self, build: &Build) {
        let (id, attempt, now) = (build.id, build.attempt, self.now);
        let log = BuildLogFile::default();
        let write = self.served.database.write(move |tx| {
            store::lose(tx, id, attempt, "gone", 1, BuildStatus::Scheduled, &log, now)
        });
        assert!(!write.await.expect("written").is_empty());
        let after = self.builds().await;
        self.ended(build, &after);
    }

    /// The attempt of a running build is over.
    fn ended(&mut self, build: &Build, after: &[Build]) {
        let why = self.asked.remove(&build.id);
        let is = after.iter().find(|is| is.id == build.id).expect("it is there");
        match is.status {
            BuildStatus::Scheduled => self.note(build.id).lost.push(build.attempt),
            BuildStatus::Canceled => self.note(build.id).end = why.map(|(_, why)| why),
            _ => self.note(build.id).end = None,
        }
    }

    /// Somebody cancels a build.
    async fn cancel(&mut self, dice: &mut Dice, build: &Build) {
        let by = ACTORS[dice.roll(3)];
        let end = format!("It was canceled because {by} asked for it");
        self.ask(Change::Cancel, Target::Build(build.id), by).await;
        match build.status {
            BuildStatus::Scheduled => self.note(build.id).end = Some(end),
            // Who cancels the build itself has the last word over who cancels its evaluation.
            BuildStatus::Started => {
                let own = self.asked.get(&build.id).is_some_and(|(own, _)| *own);
                if !own {
                    self.asked.insert(build.id, (true, end));
                }
            }
            _ => {}
        }
    }

    /// Builds that nobody wants any more were canceled, or are to end.
    async fn unwanted(&mut self, before: &[Build], end: &str, message: &str) {
        let after = self.builds().await;
        for (was, is) in before.iter().zip(&after) {
            if was.status == BuildStatus::Scheduled && is.status == BuildStatus::Canceled {
                self.note(is.id).end = Some(end.to_owned());
            }
            if is.status == BuildStatus::Started && !self.asked.contains_key(&is.id) {
                let id = is.id;
                let details = self.served.database.read(move |s: &store::Snapshot| {
                    visible::build_details(&Visible::everything(s), id)
                });
                let details = details.await.expect("reads").expect("it is there");
                let last = details.attempts.last().expect("it runs");
                if last.status == BuildStatus::Canceled && last.message == message {
                    self.asked.insert(id, (false, end.to_owned()));
                }
            }
        }
    }

    async fn restart_or_supersede(&mut self, dice: &mut Dice, before: &[Build]) {
        if dice.roll(4) == 0 {
            let number = i64::try_from(dice.roll(8)).expect("few") + 1;
            let (id, now) = (EvaluationId::new(number), self.now);
            let write = self.served.database.write(move |tx| store::supersede(tx, id, now));
            for rest in write.await.expect("written") {
                let done = store::finish_rest(&self.served.database, rest, &|_| ());
                done.await.expect("written");
            }
            let end = format!("It was canceled because #{id} superseded what wanted it");
            let message = format!("superseded by evaluation {id}");
            return self.unwanted(before, &end, &message).await;
        }
        let ended = |build: &&Build| build.status.is_finished() && !build.status.is_success();
        let ended: Vec<Build> = before.iter().filter(ended).cloned().collect();
        let Some(build) = dice.pick(&ended) else { return };
        let by = ACTORS[dice.roll(3)];
        self.ask(Change::Restart, Target::Build(build.id), by).await;
        for (was, is) in before.iter().zip(&self.builds().await) {
            if was.status.is_finished() && is.status == BuildStatus::Scheduled {
                self.note(is.id).end = None;
                if is.id == build.id {
                    self.note(is.id).restarts.insert(0, by.to_owned());
                }
            }
        }
    }

    async fn ask(&self, change: Change, target: Target, by: &str) {
        let asked = Asked::new(Actor::new(by), self.now, "");
        let database = &self.served.database;
        let done = store::carry_out(database, change, vec![target], asked, &|_| ()).await;
        done.expect("it is carried out");
    }

    /// What is told of a build.
    async fn told(&self, id: BuildId) -> Vec<String> {
        let now = self.now;
        let read = self.served.database.read(move |s: &store::Snapshot| {
            let s = &Visible::everything(s);
            let details = visible::build_details(s, id)?.expect("it is there");
            let of_build = AuditFilter { build: Some(id), ..AuditFilter::default() };
            let audit = audit::changes(s, &of_build, now)?;
            let past = Past::read(s, &details.build)?;
            let known = Known {
                build: &details.build,
                definition: details.definition.as_ref(),
                attempts: &details.attempts,
                past: &past,
                audit: &audit,
                systems: &["x86_64-linux".to_owned()],
                now,
            };
            reasons(s, &known)
        });
        let all = read.await.expect("reads").into_iter();
        let text = |reason: Reason| {
            let end = reason.after.replace(", of the same derivation.", "");
            format!("{}{}{}", reason.before, reason.label, end.trim_end_matches('.'))
        };
        let all: Vec<String> = all.map(text).collect();
        let begins = ["It was canceled", "It was not run", "It was started again", "Attempt "];
        let told = all.into_iter().filter(|text| begins.iter().any(|it| text.starts_with(it)));
        // What an attempt said is not noted.
        let cut = |text: String| match text.split_once(" count: ") {
            Some((begin, _)) => format!("{begin} count"),
            None => text,
        };
        told.map(cut).collect()
    }
}

#[tokio::test]
async fn who_canceled_a_build_whose_result_it_has_and_who_restarted_it_is_as_it_happened() {
    let mut all: Vec<String> = Vec::new();
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let mut world = World::new(&mut dice).await;
        for round in 1..=160 {
            let before = world.builds().await;
            world.step(&mut dice, &before).await;
            if round % 40 != 0 {
                continue;
            }
            for build in world.builds().await {
                let noted = world.noted.get(&build.id).cloned().unwrap_or_default();
                let told = world.told(build.id).await;
                assert_eq!(told, noted.told(), "seed {seed}, round {round}: {build:?}");
                all.extend(told);
            }
        }
        world.served.close().await;
    }
    for part in [
        "did not count",
        "started again",
        "because alice",
        "canceled with",
        "superseded",
        "not run",
    ] {
        let count = all.iter().filter(|text| text.contains(part)).count();
        assert!(count > 3, "{part}: {count}");
    }
}
