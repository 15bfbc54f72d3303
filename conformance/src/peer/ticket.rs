//! The ticket of the link stage: a password under RSA-OAEP(SHA-1) with a 1024-bit key.
//!
//! The `rsa` crate is used because others refuse keys of this size. Its private-key operation is not constant-time
//! (RUSTSEC-2023-0071); the keys here live as long as one process and protect nothing but test passwords.

use std::sync::OnceLock;

use rsa::{
    Oaep, RsaPrivateKey, RsaPublicKey,
    pkcs8::{DecodePublicKey, EncodePublicKey},
    rand_core::OsRng,
};
use sha1::Sha1;
use spice_migration::link::{PUBLIC_KEY_LEN, TICKET_LEN};

const KEY_BITS: usize = 1024;

/// A server's key pair.
#[derive(Debug)]
pub struct TicketKey {
    private: RsaPrivateKey,
    public: [u8; PUBLIC_KEY_LEN],
}

/// What is wrong with a server's public key.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// The bytes are not a key.
    #[error("not the DER form of an RSA key (SubjectPublicKeyInfo): {0}")]
    NotAKey(String),
    /// The key is not one of 1024 bits.
    #[error("an RSA key of {0} bits; the ticket's {TICKET_LEN} bytes need one of {KEY_BITS}")]
    WrongSize(usize),
    /// The key does not encrypt.
    #[error("the key does not encrypt: {0}")]
    Unusable(String),
}

impl TicketKey {
    /// The embedded hosts' key: made once per process, because making one takes tens of milliseconds.
    pub fn shared() -> &'static Self {
        static KEY: OnceLock<TicketKey> = OnceLock::new();
        KEY.get_or_init(Self::generate)
    }

    fn generate() -> Self {
        loop {
            // Neither step fails for a sound generator; an unlucky draw is drawn again.
            let Ok(private) = RsaPrivateKey::new(&mut OsRng, KEY_BITS) else { continue };
            let der = private.to_public_key().to_public_key_der();
            if let Some(public) = der.ok().and_then(|der| der.as_bytes().try_into().ok()) {
                return Self { private, public };
            }
        }
    }

    /// The public key as a link reply carries it.
    pub fn public(&self) -> [u8; PUBLIC_KEY_LEN] {
        self.public
    }

    /// The password in a ticket, without its NUL; `None` if the ticket was not made with this key.
    pub fn password(&self, ticket: &[u8; TICKET_LEN]) -> Option<Vec<u8>> {
        let mut password = self.private.decrypt(Oaep::new::<Sha1>(), ticket).ok()?;
        (password.pop() == Some(0)).then_some(password)
    }
}

/// Encrypts a password and its NUL to a server's public key.
///
/// # Errors
/// When the key is not an RSA key of 1024 bits, or the password too long for it.
pub fn encrypt(public_key: &[u8], password: &str) -> Result<[u8; TICKET_LEN], TicketError> {
    let key = RsaPublicKey::from_public_key_der(public_key).map_err(|error| TicketError::NotAKey(error.to_string()))?;
    let mut terminated = password.as_bytes().to_vec();
    terminated.push(0);
    let ticket = key
        .encrypt(&mut OsRng, Oaep::new::<Sha1>(), &terminated)
        .map_err(|error| TicketError::Unusable(error.to_string()))?;
    ticket.try_into().map_err(|ticket: Vec<u8>| TicketError::WrongSize(ticket.len() * 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_carries_its_password_to_the_key_it_was_made_for() {
        let key = TicketKey::shared();
        for password in ["", "secret"] {
            let ticket = encrypt(&key.public(), password).unwrap();
            assert_eq!(key.password(&ticket).as_deref(), Some(password.as_bytes()));
        }
        assert_eq!(key.password(&[0; TICKET_LEN]), None);
        assert_eq!(TicketKey::generate().password(&encrypt(&key.public(), "x").unwrap()), None);
    }

    #[test]
    fn a_key_that_is_none_or_of_another_size_is_refused() {
        assert!(matches!(encrypt(&[0; 162], "x"), Err(TicketError::NotAKey(_))));
        let other = RsaPrivateKey::new(&mut OsRng, 768).unwrap().to_public_key().to_public_key_der().unwrap();
        assert!(matches!(encrypt(other.as_bytes(), "x"), Err(TicketError::WrongSize(768))));
    }
}
