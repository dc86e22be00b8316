//! The paths of outputs and products, as the database stores them.

use crate::os::state_dir::OUTPUTS;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The ASCII characters that are percent-encoded, besides all bytes that are not ASCII. A slash is not encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// The path of the output with this digest, relative to the state directory. An index in `schema.sql`, and the
/// statements that use it, also contain the name of the folder.
pub fn output_path(digest: &str) -> String {
    format!("{OUTPUTS}/{digest}")
}

/// The digest of the output at this path. `None`: the output was imported, and is not in the state directory.
pub fn output_digest(path: &str) -> Option<&str> {
    path.strip_prefix(OUTPUTS)?.strip_prefix('/')
}

/// The stored path of the file at `path` in the output with this digest. It is `outputs/DIGEST/PATH`, or, if `path` is
/// not UTF-8, `outputs/DIGEST//PATH` with the path percent-encoded. No other stored path has an empty part.
pub fn product_path(digest: &str, path: &Path) -> String {
    match path.to_str() {
        Some(path) => format!("{OUTPUTS}/{digest}/{path}"),
        None => {
            format!("{OUTPUTS}/{digest}//{}", percent_encode(path.as_os_str().as_bytes(), ENCODED))
        }
    }
}

/// The path of the file that was stored as `stored`, relative to the state directory.
pub fn product_file(stored: &str) -> PathBuf {
    match stored.split_once("//") {
        Some((output, encoded)) if output_digest(output).is_some() => {
            let path = percent_decode_str(encoded).collect();
            Path::new(output).join(OsString::from_vec(path))
        }
        _ => PathBuf::from(stored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_name_is_found_again() {
        let names: [&[u8]; 9] = [
            b"plain.txt",
            b"a/b/c.txt",
            "Grüße/✓".as_bytes(),
            b"Gr\xfc\xdfe.txt",
            b"a%fc/\xff%2f",
            b"100%",
            b"\xff\n\"'\\ x",
            b".\xfe",
            b"line\nend",
        ];
        for name in names {
            let path = PathBuf::from(OsString::from_vec(name.to_vec()));
            let stored = product_path("0a1b", &path);
            assert_eq!(product_file(&stored), Path::new("outputs/0a1b").join(&path), "{stored}");
        }
        assert_eq!(product_file("/gnu/store//x"), Path::new("/gnu/store//x"), "imported");
    }
}
