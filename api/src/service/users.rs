//! Accounts as staff see them, and the roles that staff give.

use serde::{Deserialize, Serialize};
use shop_domain::{account::Role, id::UserId};
use shop_store::{StoreError, users};

use super::{email::Email, page, sessions::Principal};

pub use shop_store::users::User;

#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    #[error("nobody can take their own staff role away")]
    OwnRole,
    #[error("there is no such account")]
    Unknown,
    #[error("cannot read or write the accounts")]
    Store(#[from] StoreError),
}

/// Where a page of accounts ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCursor {
    email: String,
}

/// What staff ask of the list.
#[derive(Debug, Clone)]
pub struct UserQuery {
    /// What the address begins with.
    pub prefix: Option<String>,
    pub cursor: Option<UserCursor>,
    pub limit: i64,
}

/// A page of accounts, in the order of their addresses.
#[derive(Debug, Clone)]
pub struct UserPage {
    pub users: Vec<User>,
    pub next: Option<UserCursor>,
}

/// The accounts of the shop, for staff.
#[derive(Debug, Clone)]
pub struct Users {
    store: users::Users,
}

impl Users {
    pub fn new(store: users::Users) -> Self {
        Self { store }
    }

    pub async fn list(&self, query: UserQuery) -> Result<UserPage, UsersError> {
        let listing = users::UserListing {
            prefix: Email::normalise(&query.prefix.unwrap_or_default()),
            after: query.cursor.map(|cursor| cursor.email),
            limit: page::asked(query.limit),
        };
        let mut users = self.store.list(&listing).await?;
        let next = page::cut(&mut users, query.limit, |last| UserCursor { email: last.email.clone() });
        Ok(UserPage { users, next })
    }

    /// Gives an account a role; known everywhere within five seconds. Nobody takes the staff role from themselves: that
    /// could leave a shop without any.
    pub async fn set_role(&self, by: &Principal, id: &UserId, role: Role) -> Result<User, UsersError> {
        if *id == by.user && role != Role::Staff {
            return Err(UsersError::OwnRole);
        }
        let user = self.store.set_role(id, role).await?.ok_or(UsersError::Unknown)?;
        tracing::info!(user = %user.id, by = %by.user, role = role.as_str(), "role given");
        Ok(user)
    }
}
