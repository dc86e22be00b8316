//! The file name that a browser gives to a download (RFC 6266, RFC 8187).

use axum::http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters that are percent-encoded in `filename*`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The header of a download of the file at `path`: `filename` with plain characters for every client, and also
/// `filename*` if the name has other characters.
pub(super) fn attachment(path: &str) -> HeaderValue {
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("product");
    // Control characters are replaced. So are marks of text direction, which could show the name `gpj.exe` as
    // `exe.jpg`.
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let name: String = name.chars().map(|c| if steers(c) { '_' } else { c }).collect();
    // Clients disagree on how to read escapes in quoted text, and some decode `%`.
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !"\"\\%".contains(c);
    let short: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let mut value = format!("attachment; filename=\"{short}\"");
    if short != name {
        value.push_str("; filename*=UTF-8''");
        value.extend(utf8_percent_encode(&name, ENCODED));
    }
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_keeps_its_name_whatever_it_is() {
        for (path, wanted) in [
            ("dist/app-1.0+b_2.tar.gz", "filename=\"app-1.0+b_2.tar.gz\""),
            ("two words (1).txt", "filename=\"two words (1).txt\""),
            (".env", "filename=\".env\""),
            ("Grüße.txt", "filename=\"Gr__e.txt\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.txt"),
            ("日本.zip", "filename=\"__.zip\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.zip"),
            ("a\"b.txt", "filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
            ("a\\b", "filename=\"a_b\"; filename*=UTF-8''a%5Cb"),
            ("100%.txt", "filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
            ("a'b*c;d", "filename=\"a'b*c;d\""),
            ("a\r\nset-cookie: x", "filename=\"a__set-cookie: x\""),
            ("a\u{202e}gpj.exe", "filename=\"a_gpj.exe\""),
            ("Gr\u{fffd}e", "filename=\"Gr_e\"; filename*=UTF-8''Gr%EF%BF%BDe"),
            ("folder/", "filename=\"product\""),
            ("", "filename=\"product\""),
        ] {
            let value = attachment(path);
            assert_eq!(value.to_str().ok(), Some(&*format!("attachment; {wanted}")), "{path:?}");
        }
    }
}
