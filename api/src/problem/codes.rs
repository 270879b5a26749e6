//! Every code that a problem can have, as clients are told of it: the API's document and docs/api.md are held to this table.

/// A code, the statuses it comes with, when it comes, and what a client does about it.
#[derive(Debug)]
pub struct Code {
    pub name: &'static str,
    pub statuses: &'static [u16],
    pub when: &'static str,
    pub remedy: &'static str,
}

const fn code(name: &'static str, statuses: &'static [u16], when: &'static str, remedy: &'static str) -> Code {
    Code { name, statuses, when, remedy }
}

pub const CODES: &[Code] = &[
    code(
        "invalid_request",
        &[400],
        "malformed JSON, a field, parameter or header that may not be so, an unknown field",
        "correct what `errors` names; all faults are named at once",
    ),
    code(
        "invalid_reset_token",
        &[400],
        "the token of a password reset is wrong, used or expired",
        "ask for another mail",
    ),
    code(
        "unauthenticated",
        &[401],
        "no token, a token that is not good, a session that is over, a wrong password",
        "refresh the token or sign in",
    ),
    code("forbidden", &[403], "the account's role may not do this", "sign in as staff"),
    code("not_found", &[404], "it is not there, or it is somebody else's", "check the id and the path"),
    code("method_not_allowed", &[405], "the path has no such method", "use a method that `Allow` names"),
    code("email_taken", &[409], "an account with this address exists", "sign in, or reset the password"),
    code("own_role", &[409], "staff take away their own role", "let another member of the staff do it"),
    code(
        "out_of_stock",
        &[409],
        "the location has less than is ordered; `shortages` has each short line and what is available",
        "order less, or at another location",
    ),
    code(
        "total_changed",
        &[409],
        "`totalAmount` is not the shop's total; `totalAmount` and `items` have the present one",
        "show the new total and order again",
    ),
    code(
        "not_cancellable",
        &[409],
        "the order is cancelled or failed already, or the window for it is over; see `reason` and `orderStatus`",
        "ask the shop's staff if the window is over",
    ),
    code(
        "no_mail",
        &[409],
        "the order has never been what the mail would say; see `orderStatus`",
        "ask for the mail of its present status",
    ),
    code("not_redrivable", &[409], "the work was not given up, or was taken up again", "list the dead letters anew"),
    code(
        "precondition_failed",
        &[412],
        "the product has changed since the ETag in `If-Match`",
        "read the product again, then change it",
    ),
    code("too_large", &[413], "a body of more than 100 kB", "send less at once"),
    code(
        "unsupported_media_type",
        &[415],
        "a body that is not declared as JSON",
        "send `Content-Type: application/json`",
    ),
    code(
        "unknown_product",
        &[422],
        "products that are not in the catalogue; `products` has their ids",
        "leave them out",
    ),
    code(
        "unknown_location",
        &[422],
        "a location that never had stock",
        "use a location of the product's `availability`",
    ),
    code(
        "idempotency_key_reused",
        &[422],
        "the `Idempotency-Key` came with another body before",
        "use a new key for another order",
    ),
    code(
        "precondition_required",
        &[428],
        "a change of a product without `If-Match`",
        "send the product's ETag, or `*`",
    ),
    code(
        "rate_limited",
        &[429],
        "too many requests; `RateLimit` has the limit that is used up",
        "wait for `Retry-After` seconds",
    ),
    code(
        "too_many_streams",
        &[429, 503],
        "the account (429) or the process (503) has as many open streams as it may",
        "close one, or ask for the order instead",
    ),
    code(
        "internal",
        &[500],
        "a fault of the service; its log has it under `requestId`",
        "tell the operators the `requestId`",
    ),
    code(
        "unavailable",
        &[503],
        "something that the call needs is away",
        "wait for `Retry-After` seconds; repeat an order under its key",
    ),
    code("busy", &[503], "more sign-ins at once than passwords can be checked", "wait for `Retry-After` seconds"),
    code("timeout", &[503], "the call took too long", "wait for `Retry-After` seconds; repeat an order under its key"),
];

/// Whether the table has the code.
pub fn is_known(name: &str) -> bool {
    CODES.iter().any(|code| code.name == name)
}
