//! What can be wrong with a queue, in the words of a condition.

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use crate::{conditions::Reason, validate::Fault};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    Unreachable,
    AccessDenied,
    Missing,
    NotOwned,
    NoCertificate,
    Other,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueueError {
    pub problem: Problem,
    message: String,
}

impl QueueError {
    pub fn new(problem: Problem, message: String) -> Self {
        Self { problem, message }
    }

    pub fn from_sdk<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let Some(service) = error.as_service_error() else {
            let why = shop_runtime::telemetry::chain(error);
            return Self::new(Problem::Unreachable, format!("SQS cannot be reached: {why}"));
        };
        let code = service.code().unwrap_or("unknown");
        let problem = match code {
            _ if code.ends_with("NonExistentQueue") || code.ends_with("QueueDoesNotExist") => Problem::Missing,
            "AccessDenied"
            | "AccessDeniedException"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException"
            | "MissingAuthenticationToken" => Problem::AccessDenied,
            _ => Problem::Other,
        };
        let message = service.message().unwrap_or_default().trim_end_matches('.');
        Self::new(problem, format!("SQS answered {code}: {message}"))
    }

    /// The same, said of this queue.
    #[must_use]
    pub fn of(self, queue: &str) -> Self {
        Self { message: format!("queue {queue}: {}", self.message), ..self }
    }

    /// The fault as a shop's condition shows it.
    pub fn fault(&self) -> Fault {
        let (reason, advice) = match self.problem {
            Problem::Unreachable | Problem::Other => {
                (Reason::QueueUnreachable, "check spec.queue.endpoint and region; it is tried again by itself")
            }
            Problem::NoCertificate => (Reason::QueueUnreachable, "put the CA's certificates there, as PEM"),
            Problem::AccessDenied => (Reason::QueueAccessDenied, "check the credentials (spec.aws) and their policy"),
            Problem::Missing => (Reason::QueueMissing, "create the queue, or set spec.queue.management to Managed"),
            Problem::NotOwned => {
                (Reason::QueueNotOwned, "choose another spec.queue.name, or set management to Existing")
            }
        };
        Fault { reason, message: format!("{}; {advice}", self.message) }
    }

    /// Whether asking again soon is useless.
    pub fn is_refusal(&self) -> bool {
        matches!(self.problem, Problem::AccessDenied | Problem::Missing | Problem::NotOwned | Problem::NoCertificate)
    }
}
