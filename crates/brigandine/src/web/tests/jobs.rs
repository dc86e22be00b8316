//! Tests of the pages about jobs.

use super::*;

#[tokio::test]
async fn a_job_whose_derivation_succeeded_and_failed_is_told_to_be_flaky_and_still_to_fail() {
    let served = served().await;
    let body = served.page("/job/hello/test").await.body;
    assert!(!body.contains("flaky"), "{body}");
    assert!(body.contains("50 %: 1 of 2 builds in the last 2 evaluations"), "{body}");
    let changed =
        served.database.exclusive(move |conn: &mut rusqlite::Connection| conn.execute_batch(FLAKY));
    changed.await.expect("changed");
    let body = served.page("/job/hello/test").await.body;
    assert!(body.contains("50 %: 1 of 2 derivations both succeeded and failed"), "{body}");
    assert!(
        body.contains("<span class=\"state bad\">failed</span><span class=\"tag\">flaky</span>")
    );
    assert!(body.contains("<h2 class=\"quiet\">Since when it fails</h2>"), "{body}");
    let rows = between(&body, "data-part=\"builds\">", "</main>");
    assert_eq!(rows.matches(">flaky</span>").count(), 1, "{rows}");
    assert!(body.contains("<title>#3 failed: 26 s</title>"), "{body}");
    // Every build and every evaluation leads there.
    for (page, link) in [("/build/3", "/job/hello/test"), ("/eval/1", "/job/hello/compile")] {
        let body = served.page(page).await.body;
        assert!(body.contains(&format!("<a href=\"{link}\">")), "{page}");
    }
    served.close().await;
}

#[tokio::test]
async fn ten_thousand_jobs_of_a_grid_are_paged_by_name_and_each_is_seen_once() {
    let served = ten_thousand().await;
    for (first, jobs, builds) in [
        ("/jobset/big/grid?after=job-9", 1110, 2220),
        ("/jobset/big/grid?only=failing&after=job-9", 111, 222),
    ] {
        let (mut path, mut rows, mut cells) = (first.to_owned(), 0, 0);
        loop {
            let body = served.page(&path).await.body;
            rows += body.matches("<th scope=\"row\">").count();
            cells += body.matches("<td><a href=\"/build/").count();
            let Some(at) = body.find("rel=\"next\" href=\"/jobset/big/grid?") else { break };
            path = between(&body[at..], "href=\"", "\"").replace("&#38;", "&");
        }
        assert_eq!((rows, cells), (jobs, builds), "{first}");
        let last = served.page(&path).await.body;
        assert!(last.contains("rel=\"prev\""), "{first}");
    }
    served.close().await;
}

#[tokio::test]
async fn a_search_shows_what_fits_and_says_what_it_does_not_understand() {
    let served = served().await;
    let body = served.page("/search?query=spec:hello+status:failed").await.body;
    assert_eq!(names(&body), ["test"]);
    let body = served.page("/search?query=COMP").await.body;
    assert!(body.contains("<a href=\"/job/hello/compile\">"), "{body}");
    assert_eq!(names(&body), ["compile", "compile"], "the job and its build: {body}");
    let body = served.page("/search?query=status:queued").await.body;
    assert_eq!(names(&body), ["bench"]);
    let body = served.page("/search?query=%233").await.body;
    assert!(body.contains("<a href=\"/build/3\">") && body.contains("<a href=\"/eval/3\">"));
    let body = served.page("/search?query=author:eve").await.body;
    assert_eq!(names(&body), ["Evaluation #4", "Evaluation #3"]);
    assert!(body.contains("<p class=\"none\">No build fits.</p>"), "{body}");
    let body = served.page("/search?query=odd").await.body;
    assert!(body.contains("<a href=\"/jobset/odd\">"), "{body}");
    let answer = served.page("/search?query=%3Cx%3E:y").await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("`&#60;x&#62;:` is no field of a search"), "{}", answer.body);
    assert!(
        answer.body.contains("value=\"&#60;x&#62;:y\""),
        "what was typed stays: {}",
        answer.body
    );
    served.close().await;
}

#[tokio::test]
async fn a_search_goes_on_by_keys_and_shows_each_build_once() {
    let served = ten_thousand().await;
    // The failed builds; those of 111 jobs, which are too many to be named; and those of eleven jobs.
    for (query, builds) in [("status:failed", 1000), ("spec:big+-99", 222), ("-998", 22)] {
        let (mut path, mut found, mut steps) =
            (format!("/search?query={query}"), BTreeSet::new(), 0);
        loop {
            let body = served.page(&path).await.body;
            let list = between(&body, "<h2 class=\"quiet\">Builds</h2>", "</main>");
            for (at, _) in list.match_indices("<li class=\"row") {
                let id = between(&list[at..], "<a href=\"/build/", "\"");
                assert!(found.insert(id.to_owned()), "{query}: {id} is there twice");
            }
            steps += 1;
            let Some(at) = body.find("rel=\"next\" href=\"/search?") else { break };
            path = between(&body[at..], "href=\"", "\"").replace("&#38;", "&");
        }
        assert_eq!(found.len(), builds, "{query}");
        assert!(steps > builds / 51, "{steps}");
    }
    served.close().await;
}
