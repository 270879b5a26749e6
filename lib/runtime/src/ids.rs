//! The one source of random bits: ids, tokens and generated keys come from here.

/// The operating system's random source failed; nothing safe can be made without it.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct NoRandomness(getrandom::Error);

/// `N` bytes from the operating system's cryptographic random source.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

/// `N` random bytes as lower-case hex, `2·N` characters.
pub fn random_hex<const N: usize>() -> Result<String, NoRandomness> {
    random_bytes::<N>().map(hex::encode)
}
