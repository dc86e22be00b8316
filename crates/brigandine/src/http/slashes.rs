//! Doubled slashes in the path of a request, and a slash at its end, which clients of Cuirass and Hydra send.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// Joins doubled slashes of the path and drops the last one: `//build/7/` becomes `/build/7`. An encoded slash belongs
/// to a name and stays.
pub(super) fn join(uri: &mut Uri) {
    let path = uri.path();
    if !path.contains("//") && (path == "/" || !path.ends_with('/')) {
        return;
    }
    let mut target = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        target.push('/');
        target.push_str(part);
    }
    if target.is_empty() {
        target.push('/');
    }
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    // The parts of a valid target make a valid target. If they did not, the request would name nothing.
    let Ok(target) = target.parse::<PathAndQuery>() else { return };
    parts.path_and_query = Some(target);
    if let Ok(joined) = Uri::from_parts(parts) {
        *uri = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_are_joined_and_the_rest_stays() {
        for (target, wanted) in [
            ("/", "/"),
            ("//", "/"),
            ("///?a=//", "/?a=//"),
            ("/build/7", "/build/7"),
            ("/build/7/", "/build/7"),
            ("//build///7//?nr=1/", "/build/7?nr=1/"),
            ("/jobset/a%2F%2Fb/", "/jobset/a%2F%2Fb"),
            ("http://example.org//build/7/", "http://example.org/build/7"),
        ] {
            let mut uri: Uri = target.parse().expect("a target");
            join(&mut uri);
            assert_eq!(uri.to_string(), wanted, "{target}");
        }
    }
}
