//! Every bound, with its reason.
//!
//! A length or a count that exceeds its bound is refused before anything is done with it.

/// Largest `size` in a link header, in bytes. spice-server 0.15.1 refuses more with `SPICE_LINK_ERR_INVALID_DATA`.
pub const MAX_LINK_BODY: u32 = 4096;

/// Most capability words of either kind in a link message. spice-server 0.15.1 refuses more with
/// `SPICE_LINK_ERR_INVALID_DATA`, so a 32-bit product cannot overflow.
pub const MAX_CAPABILITY_WORDS: u32 = 1024;

/// Largest message body, in bytes: the most that is encoded, and what a `Deframer` takes unless it is told otherwise. No peer states
/// one; an uncompressed 32-bit image of 7680 x 4320 pixels has half of it. The main channel's own messages stay far below.
pub const MAX_BODY: u32 = 256 * 1024 * 1024;

/// Longest host name or certificate subject, in bytes without the NUL. A DNS name has at most 253, a Proxmox proxy ticket
/// a few hundred; X.509 sets no bound, so this one is ours.
pub const MAX_TEXT: usize = 4096;

/// Most sub-messages in one list. spice-server 0.15.1 sends at most 2; the count has 16 bits on the wire, and checking them
/// against each other takes time that grows with its square.
pub const MAX_SUB_MESSAGES: usize = 64;
