use super::*;
use crate::model::{BuildLogFile, EvaluationId};
use std::time::Duration;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

async fn rest(reader: &mut LogReader) -> String {
    let mut text = Vec::new();
    while let Some(bytes) = within(reader.next()).await.expect("readable") {
        text.extend(bytes);
    }
    String::from_utf8(text).expect("text")
}

/// Polls the future once. It must not be ready.
async fn waits(mut asked: std::pin::Pin<&mut impl Future>) {
    tokio::select! {
        biased;
        _ = &mut asked => panic!("it did not wait"),
        () = tokio::task::yield_now() => {}
    }
}

/// A running build with only those fields that a log needs.
pub(crate) fn build(attempt: i64, path: &str) -> Build {
    Build {
        id: BuildId::new(7),
        derivation: String::new(),
        specification_id: crate::model::SpecificationId::new(1),
        specification: String::new(),
        project: String::new(),
        evaluation: EvaluationId::new(1),
        job: String::new(),
        system: String::new(),
        nix_name: String::new(),
        priority: 0,
        status: BuildStatus::Started,
        weather: crate::model::Weather::Unknown,
        attempt,
        waiting: 0,
        message: String::new(),
        submitted_at: 0,
        started_at: 0,
        stopped_at: 0,
        log: BuildLogFile { path: path.to_owned(), ..BuildLogFile::default() },
        imported: false,
    }
}

const NAME: LogName = LogName::Build(BuildId::new(7), 1);

#[tokio::test]
async fn a_reader_follows_a_log_through_its_end_and_its_compression() {
    let directory = tempfile::tempdir().expect("directory");
    let logs = Logs::new(directory.path(), 1000);
    let mut writer = logs.create(NAME);
    let mut early = logs.open(&build(1, ""), 0).await.expect("log");
    // reader                       | writer
    //                              | "one"
    // "one"                        |
    //                              | "two", finish, compressed, forgotten
    // "two", end                   |
    writer.write(b"one\n").await.expect("write");
    assert_eq!(within(early.next()).await.expect("read").as_deref(), Some(&b"one\n"[..]));
    writer.write(b"two\n").await.expect("write");
    let file = writer.finish().await;
    logs.forget(NAME);
    assert_eq!(rest(&mut early).await, "two\n");
    assert_eq!(early.offset(), 8);

    assert_eq!((file.bytes, file.path.as_str()), (8, "logs/build/0/7-1.log.zst"));
    let stored = std::fs::read(directory.path().join(&file.path)).expect("stored");
    assert_eq!(file.digest, hex(&Sha256::digest(stored)));
    for (offset, expected) in [(0, "one\ntwo\n"), (4, "two\n"), (8, ""), (99, "")] {
        let mut late = logs.open(&build(1, &file.path), offset).await.expect("log");
        assert_eq!(rest(&mut late).await, expected, "from {offset}");
    }
    // A row that was read just before the commit does not name the file yet.
    let mut stale = logs.open(&build(1, ""), 0).await.expect("log");
    assert_eq!(rest(&mut stale).await, "one\ntwo\n");
}

#[tokio::test]
async fn a_log_beyond_its_limit_is_cut_and_says_so() {
    let directory = tempfile::tempdir().expect("directory");
    let logs = Logs::new(directory.path(), 10);
    let mut writer = logs.create(NAME);
    for _ in 0..5 {
        writer.write(b"12345678").await.expect("write");
    }
    let file = writer.finish().await;
    logs.forget(NAME);
    let mut reader = logs.open(&build(1, &file.path), 0).await.expect("log");
    let text = rest(&mut reader).await;
    assert_eq!(text, "1234567812\n[brigandine: the log is cut here, at its limit of 10 bytes]\n");
}

#[tokio::test]
async fn a_build_that_says_nothing_has_an_empty_log_and_no_file() {
    let directory = tempfile::tempdir().expect("directory");
    let logs = Logs::new(directory.path(), 10);
    let writer = logs.create(NAME);
    let mut early = logs.open(&build(1, ""), 0).await.expect("log");
    let file = writer.finish().await;
    assert_eq!(file, BuildLogFile::default());
    assert_eq!(rest(&mut early).await, "");
    logs.forget(NAME);
    let mut late = logs.open(&build(1, ""), 0).await.expect("log");
    assert_eq!(rest(&mut late).await, "");
    assert!(logs.open(&build(0, ""), 0).await.is_none());
}

#[tokio::test]
async fn a_log_that_is_about_to_begin_is_waited_for_and_is_never_an_empty_one_that_has_ended() {
    let directory = tempfile::tempdir().expect("directory");
    let logs = Logs::new(directory.path(), 1000);
    // reader                        | builder
    //                               | announces, commits the claim
    // reads the row, asks for a log |
    // waits                         |
    //                               | makes the log, ends the announcement
    // has the log, waits for text   |
    let coming = logs.announce();
    let started = build(1, "");
    let mut asked = std::pin::pin!(logs.open(&started, 0));
    waits(asked.as_mut()).await;
    let mut writer = logs.create(NAME);
    drop(coming);
    let mut reader = within(asked).await.expect("log");
    writer.write(b"text").await.expect("write");
    writer.finish().await;
    assert_eq!(rest(&mut reader).await, "text");
}

#[tokio::test]
async fn only_announcements_from_before_are_waited_for() {
    let directory = tempfile::tempdir().expect("directory");
    let logs = Logs::new(directory.path(), 1000);
    let one = logs.announce();
    let started = build(1, "");
    let mut asked = std::pin::pin!(logs.open(&started, 0));
    waits(asked.as_mut()).await;
    // The next announcement begins before the first one ends, as with a busy builder.
    let two = logs.announce();
    drop(one);
    let mut reader = within(asked).await.expect("log");
    assert_eq!(rest(&mut reader).await, "", "it had ended and was forgotten");
    drop(two);
}

#[tokio::test]
async fn every_attempt_that_left_a_log_is_found_and_one_that_has_not_run_has_none() {
    let directory = tempfile::tempdir().expect("directory");
    let logs = Logs::new(directory.path(), 1000);
    for attempt in [1, 3] {
        let mut writer = logs.create(LogName::Build(BuildId::new(7), attempt));
        writer.write(format!("attempt {attempt}").as_bytes()).await.expect("write");
        writer.finish().await;
        logs.forget(LogName::Build(BuildId::new(7), attempt));
    }
    let kept = logs.kept(BuildId::new(7), vec![1, 2, 3]).await;
    assert_eq!(kept, [1, 3]);
    let mut waiting = build(3, "");
    waiting.status = BuildStatus::Scheduled;
    assert!(logs.open(&waiting, 0).await.is_none(), "it is to run again");
    for (attempt, text) in [(1, "attempt 1"), (2, ""), (3, "attempt 3")] {
        let mut reader = logs.open_attempt(&waiting, attempt, 0).await.expect("an attempt");
        assert_eq!(rest(&mut reader).await, text);
        assert_eq!(reader.is_missing(), attempt == 2);
    }
    for attempt in [-1, 0, 4, i64::MAX] {
        assert!(logs.open_attempt(&waiting, attempt, 0).await.is_none(), "{attempt}");
    }
}

#[tokio::test]
async fn the_log_of_an_evaluation_that_begins_is_waited_for_as_well() {
    let directory = tempfile::tempdir().expect("directory");
    let logs = Logs::new(directory.path(), 1000);
    let evaluation = Evaluation {
        id: EvaluationId::new(3),
        specification_id: crate::model::SpecificationId::new(1),
        specification: String::new(),
        status: EvaluationStatus::Started,
        message: String::new(),
        created_at: 1,
        checkout_at: 0,
        finished_at: 0,
        log_path: String::new(),
        counters: crate::model::Counters::default(),
        kept: false,
        withdrawn: false,
        successor: None,
    };
    let coming = logs.announce();
    let mut asked = std::pin::pin!(logs.open_evaluation(&evaluation, 0));
    waits(asked.as_mut()).await;
    let mut writer = logs.create(LogName::Evaluation(evaluation.id));
    drop(coming);
    let mut reader = within(asked).await;
    writer.write(b"text").await.expect("write");
    writer.finish().await;
    assert_eq!(rest(&mut reader).await, "text");
}

#[tokio::test]
async fn a_folder_of_logs_goes_with_its_last_log_and_comes_back_with_the_next() {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = Logs::new(directory.path(), 1000);
    let names = [1, 2].map(|attempt| LogName::Build(BuildId::new(7), attempt));
    let folder = directory.path().join("logs/build/0");
    for _ in 0..2 {
        for name in names {
            let mut writer = logs.create(name);
            writer.write(b"text").await.expect("written");
            writer.finish().await;
        }
        logs.remove_at(&names[0].path()).expect("removed");
        assert!(folder.exists(), "another log is there");
        logs.remove_at(&names[1].path()).expect("removed");
        assert!(!folder.exists(), "nothing is there");
    }
}

#[test]
fn why_there_is_no_log_is_true_of_builds_that_were_started_before() {
    for status in BuildStatus::ALL.iter().copied().filter(|it| *it != BuildStatus::Started) {
        let said = |attempt| Build { status, ..build(attempt, "") }.no_log().expect("a sentence");
        let again = said(1);
        assert!(!again.contains("never") && !again.contains("before it started"), "{again}");
        assert_ne!(again, said(0), "{status}");
    }
}
