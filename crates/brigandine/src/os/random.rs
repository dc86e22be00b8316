//! Random bytes of the kernel.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes that nobody can guess.
///
/// # Errors
/// The kernel has none, or only part of them.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // The kernel fills up to 256 bytes at once (getrandom(2)).
    let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if filled == N { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_secrets_are_the_same() {
        let [one, two] = [0; 2].map(|_| super::random::<32>().expect("bytes"));
        assert_ne!(one, two);
    }
}
