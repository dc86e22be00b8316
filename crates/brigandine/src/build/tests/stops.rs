//! What a stop of the server makes of the ends of attempts.

use super::*;

#[tokio::test]
async fn an_end_that_a_stop_of_the_server_has_caused_is_no_result() {
    use BuildStatus::{Failed, FailedOther, Scheduled, Succeeded};
    for (stop, status, killed, expected) in [
        (Stop::Now, Failed, true, Scheduled),
        (Stop::Now, FailedOther, true, Scheduled),
        // The command saw its child end, and failed.
        (Stop::Now, Failed, false, Scheduled),
        (Stop::Now, Succeeded, false, Succeeded),
        (Stop::Drain, Failed, true, Scheduled),
        (Stop::Drain, Failed, false, Failed),
    ] {
        let mut bench = bench(1, 1).await;
        let offered = bench.offer().await;
        bench.builder.stop(stop);
        if killed {
            bench.killed(offered, status).await;
        } else {
            bench.ended(offered, status).await;
        }
        within(&mut bench.task).await.expect("no panic").expect("no error");
        assert_eq!(bench.state(offered.0).await, (expected, 1), "{stop:?} {status} {killed}");
    }
    let mut bench = bench(1, 1).await;
    let offered = bench.offer().await;
    bench.builder.stop(Stop::Now);
    bench.lost(offered).await;
    within(&mut bench.task).await.expect("no panic").expect("no error");
    let found = bench.database.read(move |s| store::build(s, offered.0)).await.expect("reads");
    assert_eq!(found.expect("the build").message, "the server was stopped", "no loss");
}

#[tokio::test]
async fn a_build_that_was_killed_just_before_the_server_heard_of_its_stop_is_no_failure() {
    for stop in [Stop::Now, Stop::Drain] {
        let mut bench = bench(2, 2).await;
        let (killed, other) = (bench.offer().await, bench.offer().await);
        bench.killed(killed, BuildStatus::Failed).await;
        bench.ended(other, BuildStatus::Succeeded).await;
        // The loop takes events in their order, so it knows the first one by now.
        bench.told(other.0, BuildStatus::Succeeded).await;
        assert_eq!(bench.state(killed.0).await, (BuildStatus::Started, 1), "held back");
        bench.builder.stop(stop);
        within(&mut bench.task).await.expect("no panic").expect("no error");
        assert_eq!(bench.state(killed.0).await, (BuildStatus::Scheduled, 1), "{stop:?}");
    }
}

#[tokio::test]
async fn a_build_that_was_killed_while_the_server_goes_on_has_failed() {
    let mut bench = bench(1, 1).await;
    let offered = bench.offer().await;
    bench.killed(offered, BuildStatus::Failed).await;
    bench.told(offered.0, BuildStatus::Failed).await;
    within(bench.builder.wait_idle()).await;
}

#[tokio::test]
async fn a_drain_does_not_undo_a_stop() {
    let mut bench = bench(1, 1).await;
    let offered = bench.offer().await;
    bench.builder.stop(Stop::Now);
    bench.builder.stop(Stop::Drain);
    assert_eq!(within(bench.canceled.recv()).await, Some(offered));
    bench.ended(offered, BuildStatus::Canceled).await;
    within(&mut bench.task).await.expect("no panic").expect("no error");
    assert_eq!(bench.state(offered.0).await, (BuildStatus::Scheduled, 1));
}
