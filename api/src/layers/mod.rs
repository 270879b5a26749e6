//! What happens around every request, in the order of `router::router`. No business rules.

pub mod address;
pub mod drain;
pub mod headers;
pub mod limit;
pub mod outage;
pub mod red;
pub mod request_id;
pub mod timeout;
