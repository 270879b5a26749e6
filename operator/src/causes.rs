//! Errors in one line, for logs and conditions. Of an answer of the API server what it says, and no more: kube would show all of
//! its fields as well, and nobody would see the advice behind them.

use std::error::Error;

/// An error with everything that caused it, as far as the API server's own words.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let (mut told, mut next) = (Vec::<String>::new(), Some(error));
    while let Some(cause) = next {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            told.push(status.message.clone());
            break;
        }
        let text = cause.to_string();
        if !told.last().is_some_and(|before| before.ends_with(&text)) {
            told.push(text);
        }
        next = cause.source();
    }
    told.join(": ")
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot apply ConfigMap demo")]
    struct Refused(#[source] kube::Error);

    #[test]
    fn an_answer_of_the_api_server_is_told_in_its_words_alone() {
        let status = Status::failure("configmaps is forbidden", "Forbidden").with_code(403);
        let refused = Refused(kube::Error::Api(status.boxed()));
        assert_eq!(chain(&refused), "cannot apply ConfigMap demo: configmaps is forbidden");
        let broken = Refused(kube::Error::LinesCodecMaxLineLengthExceeded);
        assert_eq!(
            chain(&broken),
            format!("cannot apply ConfigMap demo: {}", kube::Error::LinesCodecMaxLineLengthExceeded)
        );
    }
}
