//! Who the shop is to others: AWS credentials, signing keys, staff, passwords.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::NameRef;

/// How the pods and the operator identify themselves to AWS.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!has(self.credentialsSecretRef) || !has(self.serviceAccountAnnotations)")
    .message("aws: set at most one of credentialsSecretRef and serviceAccountAnnotations"))]
#[serde(rename_all = "camelCase")]
pub struct Aws {
    /// A Secret with the keys accessKeyId and secretAccessKey; the operator uses it for this shop's queue too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<NameRef>,
    /// Annotations of the pods' ServiceAccounts, for workload identity (such as eks.amazonaws.com/role-arn).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = { "type": "string", "maxLength": 4096 }))]
    pub service_account_annotations: BTreeMap<String, String>,
}

/// Signing keys, the staff account, token life, passwords.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// A Secret whose key keys.json holds the signing keys. Left out: the operator makes one, once, called SHOP-keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_secret_ref: Option<NameRef>,
    /// A Secret with the keys email and password: the first staff account. Left out: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staff_secret_ref: Option<NameRef>,
    /// Life of an access token.
    #[serde(default = "Auth::minutes")]
    #[schemars(range(min = 1, max = 1440))]
    pub access_token_minutes: i32,
    /// The shop's page for new passwords, with {token} where the token goes, such as
    /// https://shop.example.com/reset?token={token}. Left out: the mail shows the token and the call to make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^\s{}]*[{]token[}][^\s{}]*$"))]
    pub password_reset_url: Option<String>,
    /// What a password's hash costs. A stored hash that cost something else is renewed at the next sign-in.
    #[serde(default)]
    pub argon2: Argon2,
}

impl Auth {
    fn minutes() -> i32 {
        15
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            keys_secret_ref: None,
            staff_secret_ref: None,
            access_token_minutes: Self::minutes(),
            password_reset_url: None,
            argon2: Argon2::default(),
        }
    }
}

/// The parameters of argon2id. The memory is taken once for each password that is being checked: raise api.resources with it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Argon2 {
    /// Memory of one hash, in KiB.
    #[schemars(range(min = 7168, max = 1_048_576))]
    pub memory_kib: i32,
    /// Passes over the memory.
    #[schemars(range(min = 1, max = 16))]
    pub passes: i32,
    /// Lanes, which may be computed side by side.
    #[schemars(range(min = 1, max = 16))]
    pub lanes: i32,
    /// Passwords that one pod hashes at once; 16 more may wait for each. Left out: one for each processor but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub workers: Option<i32>,
}

impl Default for Argon2 {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, lanes: 1, workers: None }
    }
}
