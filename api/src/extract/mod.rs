//! What handlers ask of a request, checked before they run. Each extractor answers with a problem when it cannot.

mod body;
mod cookie;
pub mod fields;
mod headers;
mod path;
mod query;
mod user;

pub use body::Body;
pub use cookie::{RefreshCookie, SessionProofs, expired_cookie, refresh_cookie};
pub use fields::{Fields, FromFields};
pub use headers::{IdempotencyKey, IfMatch, LastEventId, SignIn};
pub use path::Id;
pub use query::{Limit, Query, to_cursor};
pub use user::{AccessToken, CurrentUser, Staff};
