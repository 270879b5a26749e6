//! What can be wrong with a queue, in the words of a condition.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
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

    pub fn from_sdk<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let Some(service) = error.as_service_error() else {
            let why = shop_runtime::telemetry::chain(error);
            if has_no_credentials(error) {
                return Self::new(Problem::AccessDenied, format!("the operator has no credentials for SQS: {why}"));
            }
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
            | "MissingAuthenticationToken"
            | "InvalidSecurity"
            | "IncompleteSignature"
            | "ExpiredToken"
            | "ExpiredTokenException" => Problem::AccessDenied,
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

/// Whether nothing was sent because there is nothing to sign it with.
fn has_no_credentials(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    causes.any(<dyn Error>::is::<CredentialsError>)
}

#[cfg(test)]
mod tests {
    use aws_credential_types::credential_fn::provide_credentials_fn;
    use aws_sdk_sqs::{
        Client, Config,
        config::{BehaviorVersion, Region},
        error::ErrorMetadata,
        operation::get_queue_attributes::GetQueueAttributesError,
    };
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("AccessDenied", Reason::QueueAccessDenied, "check the credentials (spec.aws) and their policy")]
    #[case("ExpiredToken", Reason::QueueAccessDenied, "check the credentials")]
    #[case("InvalidSecurity", Reason::QueueAccessDenied, "check the credentials")]
    #[case("IncompleteSignature", Reason::QueueAccessDenied, "check the credentials")]
    #[case("AWS.SimpleQueueService.NonExistentQueue", Reason::QueueMissing, "create the queue")]
    #[case("QueueDoesNotExist", Reason::QueueMissing, "create the queue")]
    #[case("ThrottlingException", Reason::QueueUnreachable, "it is tried again by itself")]
    fn what_sqs_answers_has_a_reason_and_a_remedy(#[case] code: &str, #[case] reason: Reason, #[case] remedy: &str) {
        let answer = ErrorMetadata::builder().code(code).message("Not so.").build();
        let error = SdkError::service_error(GetQueueAttributesError::generic(answer), ());
        let fault = QueueError::from_sdk(&error).of("orders").fault();
        assert_eq!(fault.reason, reason);
        let said = format!("queue orders: SQS answered {code}: Not so;");
        assert!(fault.message.starts_with(&said) && fault.message.contains(remedy), "{}", fault.message);
    }

    #[test]
    fn no_answer_is_told_with_its_cause() {
        let error = SdkError::<GetQueueAttributesError, ()>::timeout_error("nobody there");
        let fault = QueueError::from_sdk(&error).fault();
        assert_eq!(fault.reason, Reason::QueueUnreachable);
        assert!(
            fault.message.contains("SQS cannot be reached") && fault.message.contains("nobody there"),
            "{}",
            fault.message
        );
    }

    #[tokio::test]
    async fn that_there_are_no_credentials_is_no_fault_of_the_server() {
        let none = provide_credentials_fn(|| async { Err(CredentialsError::not_loaded("no identity here")) });
        let config = Config::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("x"));
        let client = Client::from_conf(config.endpoint_url("http://127.0.0.1:1").credentials_provider(none).build());
        let fault = QueueError::from_sdk(&client.list_queues().send().await.unwrap_err()).fault();
        assert_eq!(fault.reason, Reason::QueueAccessDenied);
        assert!(fault.message.contains("no identity here") && fault.message.contains("spec.aws"), "{}", fault.message);
    }
}
