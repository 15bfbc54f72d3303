//! The parties that the suite plays: the client, and the embedded source and target hosts with defects that can be
//! switched on.

pub mod client;
pub mod defect;
pub mod host;
pub mod ticket;
pub mod tls;
