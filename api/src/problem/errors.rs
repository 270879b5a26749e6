//! Which problem each error of the services is: the only file that knows which status an error has.

use std::borrow::Cow;

use axum::http::StatusCode;
use shop_domain::id::ProductId;
use shop_store::StoreError;

use super::Problem;
use crate::{
    dead_letters::RedriveError,
    passwords::PasswordError,
    service::{
        accounts::AccountError,
        catalogue::{self, CatalogueError},
        erasure::ErasureError,
        inventory::InventoryError,
        mails::MailError,
        order_events::FollowError,
        orders::{Miss, NotCancellable, OrderError},
        password_reset::ResetError,
        sessions::SessionError,
        users::UsersError,
    },
    views::{self, Amount},
};

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        if error.is_transient() { Self::unavailable(error) } else { Self::internal(error) }
    }
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        match &error {
            SessionError::Invalid => Self::unauthenticated("the token is not valid, or its session is over: sign in"),
            SessionError::Store(store) => store.into(),
            SessionError::SharedRead(store) => store.as_ref().into(),
            SessionError::Signing(_) | SessionError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::EmailTaken => {
                Self::new(StatusCode::CONFLICT, "email_taken", "an account with this e-mail address exists")
            }
            AccountError::WrongCredentials => Self::unauthenticated("incorrect email or password"),
            AccountError::WrongPassword => Self::unauthenticated("the password is wrong"),
            AccountError::Store(store) => (&store).into(),
            AccountError::Password(PasswordError::Busy) => Self::busy(),
            AccountError::Session(session) => session.into(),
            error @ (AccountError::Password(_) | AccountError::Random(_)) => Self::internal(&error),
        }
    }
}

impl From<ErasureError> for Problem {
    fn from(error: ErasureError) -> Self {
        match error {
            ErasureError::Store(store) => (&store).into(),
            ErasureError::Session(session) => session.into(),
        }
    }
}

impl From<UsersError> for Problem {
    fn from(error: UsersError) -> Self {
        match error {
            UsersError::OwnRole => {
                let detail = "nobody can take their own staff role away; another member of the staff can";
                Self::new(StatusCode::CONFLICT, "own_role", detail)
            }
            UsersError::Unknown => Self::not_found(),
            UsersError::Store(store) => (&store).into(),
        }
    }
}

impl From<CatalogueError> for Problem {
    fn from(error: CatalogueError) -> Self {
        match &error {
            CatalogueError::Changed => {
                let detail = "the product has changed since you read it: read it again, then change it";
                Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
            }
            CatalogueError::Store(store) => store.into(),
            CatalogueError::Read(miss) => match miss.as_ref() {
                catalogue::Miss::Absent => Self::not_found(),
                catalogue::Miss::Store(store) => store.into(),
                catalogue::Miss::Unwritable(_) => Self::internal(&error),
            },
            CatalogueError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<InventoryError> for Problem {
    fn from(error: InventoryError) -> Self {
        match &error {
            InventoryError::UnknownProducts(ids) => unknown_products(ids),
            InventoryError::Store(store) => store.into(),
            InventoryError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        match &error {
            OrderError::UnknownLocation => {
                let detail = "nothing has ever been sold at this location";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_location", detail)
            }
            OrderError::UnknownProducts(ids) => unknown_products(ids),
            OrderError::TotalChanged { present, currency } => {
                let detail = "the total is not what you expect; see totalAmount and items for the present prices";
                Self::new(StatusCode::CONFLICT, "total_changed", detail)
                    .with("totalAmount", &Amount::new(present.total, *currency))
                    .with("currency", &currency)
                    .with("items", &views::items(&present.lines, *currency))
            }
            OrderError::OutOfStock(short) => {
                let detail = "some products are out of stock at this location; see shortages";
                Self::new(StatusCode::CONFLICT, "out_of_stock", detail).with("shortages", &views::short_lines(short))
            }
            OrderError::TooLarge(cause) => Self::field("/items", cause),
            OrderError::KeyReused => {
                let detail = "this Idempotency-Key was used for another request";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
            }
            OrderError::NotCancellable { status, why } => not_cancellable(*why).with("orderStatus", status),
            OrderError::Store(store) => store.into(),
            OrderError::SharedRead(miss) => match miss.as_ref() {
                Miss::Store(store) => store.into(),
                Miss::Absent => Self::not_found(),
            },
            OrderError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<FollowError> for Problem {
    fn from(error: FollowError) -> Self {
        let code = "too_many_streams";
        match error {
            FollowError::Full => {
                let detail = "the service holds as many open streams as it may; ask for the order instead";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(5)
            }
            FollowError::FullForAccount => {
                let detail = "you have as many open streams as an account may have; close one";
                Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail).retry_after(5)
            }
            FollowError::Order(order) => order.into(),
        }
    }
}

impl From<RedriveError> for Problem {
    fn from(error: RedriveError) -> Self {
        match &error {
            RedriveError::Unknown => Self::not_found(),
            RedriveError::NotRedrivable => {
                let detail = "it was not given up, or it has been taken up again";
                Self::new(StatusCode::CONFLICT, "not_redrivable", detail)
            }
            RedriveError::Store(store) => store.into(),
            RedriveError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<MailError> for Problem {
    fn from(error: MailError) -> Self {
        match &error {
            MailError::NoMail(status) => {
                let detail =
                    "the order has no such mail: it has never been what the mail would say, or its buyer is gone";
                Self::new(StatusCode::CONFLICT, "no_mail", detail).with("orderStatus", &status)
            }
            MailError::Store(store) => store.into(),
            MailError::Random(_) => Self::internal(&error),
        }
    }
}

fn not_cancellable(why: NotCancellable) -> Problem {
    let (reason, detail) = match why {
        NotCancellable::AlreadyCancelled => ("already_cancelled", Cow::Borrowed("the order is cancelled already")),
        NotCancellable::Failed => ("failed", Cow::Borrowed("the order has failed: there is nothing to cancel")),
        NotCancellable::WindowOver(window) if window.is_zero() => {
            ("window_over", Cow::Borrowed("the order is processed: ask the shop's staff to cancel it"))
        }
        NotCancellable::WindowOver(window) => {
            let minutes = window.as_mins();
            let detail = format!("the order was processed more than {minutes} minutes ago: ask the shop's staff");
            ("window_over", Cow::Owned(detail))
        }
    };
    Problem::new(StatusCode::CONFLICT, "not_cancellable", detail).with("reason", &reason)
}

impl From<ResetError> for Problem {
    fn from(error: ResetError) -> Self {
        match error {
            ResetError::InvalidToken => {
                let detail = "the token is wrong, used or expired: ask for another mail";
                Self::new(StatusCode::BAD_REQUEST, "invalid_reset_token", detail)
            }
            ResetError::Store(store) => (&store).into(),
            ResetError::Password(PasswordError::Busy) => Self::busy(),
            error => Self::internal(&error),
        }
    }
}

fn unknown_products(ids: &[ProductId]) -> Problem {
    let detail = "some products are not in the catalogue; see products";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_product", detail).with("products", &ids)
}
