//! What an answer of the mail service means for the mail, for its address and for the mailer. Pure.
//! Sources: the errors of SES's `SendEmail` (API reference), and "Amazon SES email sending errors" (developer guide).

/// What is to be done about a mail that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Too many mails for the mail service just now: the mailer slows down, the mail waits.
    Throttled,
    /// The mail service is away or has a fault: the mail waits.
    ServiceFault,
    /// The shop's own set-up is at fault, with any buyer: the mail waits until it is mended.
    ShopFault,
    /// This address is not sent to, now or later.
    AddressRejected,
    /// This one mail was not taken: it is worth some more attempts.
    Refused,
}

/// What the mail service answered.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    pub status: u16,
    /// Empty when the answer has none: then it is not SES that speaks.
    pub code: &'a str,
    /// May repeat addresses: never log it.
    pub message: &'a str,
}

const THROTTLED: [&str; 8] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequests",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "LimitExceeded",
    "MaxSendingRateExceeded",
];
/// Credentials, permissions, the account, its sender and its clock.
const OF_THE_SHOP: [&str; 18] = [
    "AccessDenied",
    "AccessDeniedException",
    "AccountSendingPaused",
    "AccountSendingPausedException",
    "ConfigurationSetDoesNotExist",
    "ConfigurationSetDoesNotExistException",
    "ConfigurationSetSendingPaused",
    "ConfigurationSetSendingPausedException",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "MailFromDomainNotVerified",
    "MailFromDomainNotVerifiedException",
    "MissingAuthenticationToken",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];
/// Parts of `MessageRejected` that are about the account or its identities. An address that is not verified is the
/// sender's, or the buyer's while the account is in the sandbox: the shop's matter both times.
const ACCOUNT: [&str; 5] = ["not verified", "suspended", "paused", "sandbox", "shut down"];
const ON_A_LIST: [&str; 2] = ["blacklist", "suppression list"];
/// What SES says of an address that it cannot read.
const NO_ADDRESS: [&str; 11] = [
    "missing final '@domain'",
    "illegal address",
    "local address ",
    "domain contains ",
    "domain starts with ",
    "domain ends with ",
    "invalid domain name",
    "missing local name",
    "missing domain",
    "user name is missing",
    "domain name is missing",
];
/// An address that one of these parameters holds is the shop's own.
const SENDER: [&str; 4] = ["source", "sender", "return-path", "returnpath"];

pub fn judge(refusal: &Refusal<'_>) -> Verdict {
    let Refusal { status, code, .. } = *refusal;
    if status == 429 || THROTTLED.contains(&code) {
        Verdict::Throttled
    } else if status >= 500 || code.is_empty() {
        Verdict::ServiceFault
    } else if matches!(status, 401 | 403) || OF_THE_SHOP.contains(&code) {
        Verdict::ShopFault
    } else if matches!(code, "MessageRejected" | "InvalidParameterValue") {
        judge_message(&refusal.message.to_lowercase())
    } else {
        Verdict::Refused
    }
}

fn judge_message(message: &str) -> Verdict {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    if says(&ON_A_LIST) {
        Verdict::AddressRejected
    } else if says(&ACCOUNT) {
        Verdict::ShopFault
    } else if says(&NO_ADDRESS) {
        if says(&SENDER) { Verdict::ShopFault } else { Verdict::AddressRejected }
    } else {
        Verdict::Refused
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(400, "Throttling", "Maximum sending rate exceeded.", Verdict::Throttled)]
    #[case(400, "Throttling", "Daily message quota exceeded.", Verdict::Throttled)]
    #[case(400, "ThrottlingException", "Rate exceeded", Verdict::Throttled)]
    #[case(429, "TooManyRequestsException", "", Verdict::Throttled)]
    #[case(429, "", "<html>slow down</html>", Verdict::Throttled)]
    #[case(503, "Throttling", "Rate exceeded", Verdict::Throttled)]
    #[case(500, "InternalFailure", "", Verdict::ServiceFault)]
    #[case(503, "ServiceUnavailable", "", Verdict::ServiceFault)]
    #[case(502, "", "<html>bad gateway</html>", Verdict::ServiceFault)]
    #[case(404, "", "<html>not found</html>", Verdict::ServiceFault)]
    #[case(400, "MailFromDomainNotVerified", "MAIL FROM domain not verified", Verdict::ShopFault)]
    #[case(400, "MailFromDomainNotVerifiedException", "", Verdict::ShopFault)]
    #[case(400, "ConfigurationSetDoesNotExist", "Configuration set <x> does not exist.", Verdict::ShopFault)]
    #[case(400, "ConfigurationSetSendingPaused", "", Verdict::ShopFault)]
    #[case(400, "AccountSendingPausedException", "", Verdict::ShopFault)]
    #[case(403, "InvalidClientTokenId", "The security token included in the request is invalid.", Verdict::ShopFault)]
    #[case(403, "SignatureDoesNotMatch", "", Verdict::ShopFault)]
    #[case(403, "", "<html>forbidden</html>", Verdict::ServiceFault)]
    #[case(400, "RequestExpired", "", Verdict::ShopFault)]
    #[case(
        400,
        "MessageRejected",
        "Email address is not verified. The following identities failed the check in region AP-SOUTH-1: a@b.c",
        Verdict::ShopFault
    )]
    #[case(400, "MessageRejected", "Sending suspended for this account.", Verdict::ShopFault)]
    #[case(400, "MessageRejected", "Sending paused for this account.", Verdict::ShopFault)]
    #[case(400, "MessageRejected", "Address blacklisted.", Verdict::AddressRejected)]
    #[case(400, "MessageRejected", "The address is on the suppression list for your account", Verdict::AddressRejected)]
    #[case(400, "MessageRejected", "Transaction failed: Expected disposition, got null", Verdict::Refused)]
    #[case(400, "InvalidParameterValue", "Missing final '@domain'", Verdict::AddressRejected)]
    #[case(400, "InvalidParameterValue", "Local address contains control or whitespace", Verdict::AddressRejected)]
    #[case(400, "InvalidParameterValue", "Domain contains illegal character", Verdict::AddressRejected)]
    #[case(400, "InvalidParameterValue", "Domain ends with dot", Verdict::AddressRejected)]
    #[case(400, "InvalidParameterValue", "Invalid Source: Missing final '@domain'", Verdict::ShopFault)]
    #[case(400, "InvalidParameterValue", "Return-Path: Illegal address", Verdict::ShopFault)]
    #[case(400, "InvalidParameterValue", "Invalid header", Verdict::Refused)]
    #[case(400, "ValidationError", "", Verdict::Refused)]
    #[case(413, "RequestEntityTooLarge", "", Verdict::Refused)]
    fn each_refusal_is_put_down_to_whose_fault_it_is(
        #[case] status: u16,
        #[case] code: &str,
        #[case] message: &str,
        #[case] verdict: Verdict,
    ) {
        assert_eq!(judge(&Refusal { status, code, message }), verdict);
    }
}
