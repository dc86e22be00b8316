//! Compares the routes of Hydra with golden files, and asks as its clients do.

use axum::http::Uri;

use super::named::tail;
use crate::api::tests::{JSON, check_with};
use crate::site::harness::served;

#[test]
fn the_tail_of_an_address_is_left_as_it_is() {
    for (address, wanted) in [
        ("/job/p/j/n/latest", ""),
        ("/job/p/j/n/latest/download/1/a%20b", "/download/1/a%20b"),
        ("/job/p/j/n/latest/log/raw?offset=7&x=%2F", "/log/raw?offset=7&x=%2F"),
        ("/job/p/j/n/latest?x", "?x"),
        ("/", ""),
    ] {
        assert_eq!(tail(&Uri::from_static(address), 5), wanted, "{address}");
    }
}

#[tokio::test]
async fn projects_and_jobsets_are_written_as_hydra_does() {
    let requests = [
        "/",
        "/project/main",
        "/project/tools",
        "/project/unknown",
        "/jobset/main/hello",
        "/jobset/tools/odd",
        "/jobset/tools/hello",
        "/jobset/main/gone",
        "/jobset/main/unknown",
    ];
    check_with("projects", JSON, &requests).await;
}

#[tokio::test]
async fn evaluations_are_written_as_hydra_does() {
    let requests = [
        "/eval/1",
        "/eval/2",
        "/eval/4",
        "/eval/99",
        "/eval/x",
        "/eval/1/builds",
        "/eval/2/builds?after=package",
        "/eval/4/builds",
        "/eval/99/builds",
        "/eval/1/builds?build=x",
        "/jobset/main/hello/evals",
        "/jobset/tools/odd/evals?page=1",
        "/jobset/tools/odd/evals?page=2",
        "/jobset/tools/odd/evals?page=0",
        "/jobset/tools/odd/evals?page=x",
        "/jobset/tools/hello/evals",
        "/jobset/main/hello/latest-eval",
        "/jobset/main/hello/latest-eval/builds",
        "/jobset/tools/odd/latest-eval",
    ];
    check_with("hydra-evaluations", JSON, &requests).await;
}

#[tokio::test]
async fn the_latest_builds_of_jobs_are_where_hydra_has_them() {
    let requests = [
        "/job/main/hello/test/latest",
        "/job/main/hello/compile/latest",
        "/job/main/hello/compile/latest-finished",
        "/job/main/hello/compile/latest-for/x86_64-linux",
        "/job/main/hello/compile/latest-for/aarch64-linux",
        "/job/main/hello/compile/latest/download/1/a%20b",
        "/job/main/hello/compile/latest-finished/download-by-type/file/x",
        "/job/main/hello/compile/latest-for/x86_64-linux/download/1",
        "/job/main/hello/package/latest",
        "/job/main/hello/unknown/latest",
        "/job/tools/hello/test/latest",
        "/job/main/hello/compile/shield",
        "/job/main/hello/test/shield",
        "/job/main/hello/docs/shield",
        "/job/main/hello/bench/shield",
        "/build/1/constituents",
        "/build/4/constituents",
        "/build/99/constituents",
    ];
    check_with("hydra-jobs", JSON, &requests).await;
}

#[tokio::test]
async fn a_search_finds_what_hydras_does() {
    let requests = [
        "/search?query=HELLO",
        "/search?query=tool",
        "/search?query=aaaa-compile.drv",
        "/search?query=/store/gggg-lint-2.drv",
        "/search?query=outputs/bbbb-test",
        "/search?query=/var/lib/brigandine/outputs/bbbb-test-doc",
        "/search?query=nothing",
        "/search?query=%20",
        "/search",
    ];
    check_with("search", JSON, &requests).await;
}

#[tokio::test]
async fn a_page_is_json_for_those_who_name_it() {
    let served = served().await;
    for path in ["/", "/eval/2"] {
        let json = served.ask("GET", path, JSON).await;
        assert_eq!(json.header("content-type"), Some("application/json"), "{path}");
        // As hydra-cli asks.
        let kind = "accept: */*\r\ncontent-type: application/json\r\n";
        assert_eq!(served.ask("GET", path, kind).await.body, json.body, "{path}");
        let both = "accept: text/html, application/json\r\n";
        for headers in ["", "accept: */*\r\n", both] {
            let page = served.ask("GET", path, headers).await;
            let kind = page.header("content-type");
            assert_eq!(kind, Some("text/html; charset=utf-8"), "{path} {headers}");
            let vary = "accept, content-type, x-brigandine-parts, accept-encoding";
            assert_eq!(page.header("vary"), Some(vary), "{path}");
        }
    }
    let json = served.ask("GET", "/jobset/main/hello", JSON).await;
    assert_eq!(json.header("vary"), Some("accept, accept-encoding"));
    let page = served.page("/jobset/main/hello").await;
    assert_eq!(page.header("vary"), Some("accept"));
    assert_eq!((page.status, page.header("location")), (302, Some("/jobset/hello")));
    assert_eq!(served.page("/jobset/tools/hello").await.status, 404);
    served.close().await;
}

#[tokio::test]
async fn scripts_find_products_by_place_type_and_search() {
    let served = served().await;
    served.put("products/hello", b"hello world\n");
    for path in [
        "/build/1/download/1",
        "/build/1/download/1/hello",
        "/build/1/download-by-type/file/binary",
        "/build/1/download-by-type/file/binary/hello",
        "/build/aaaa-compile.drv/download/1",
        "/search/latest/file?query=spec:hello+status:success+system:x86_64-linux+COMP",
        "/search/latest/file",
    ] {
        let answer = served.get(path).await;
        assert_eq!((answer.status, &*answer.body), (200, "hello world\n"), "{path}");
        assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"hello\""));
    }
    let part = served.ask("GET", "/build/1/download/1/x", "range: bytes=6-\r\n").await;
    assert_eq!((part.status, &*part.body), (206, "world\n"));
    let latest = served.get("/job/main/hello/compile/latest/download/1/hello").await;
    assert_eq!(latest.header("location"), Some("/build/1/download/1/hello"));
    for path in [
        "/build/1/download/0",
        "/build/1/download/3",
        "/build/1/download/x",
        "/build/2/download/1",
        "/build/99/download/1",
        "/build/1/download/1/hello/more",
        "/build/1/download-by-type/doc/manual",
        "/search/latest/image",
        "/search/latest/file?query=spec:odd",
        "/search/latest/file?query=status:failed",
        "/search/latest/file?query=nothing",
    ] {
        assert_eq!(served.get(path).await.status, 404, "{path}");
    }
    served.close().await;
}
