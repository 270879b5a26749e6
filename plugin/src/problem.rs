//! What can be in the way of a command: what happened, where, and what to do about it.

use kube::core::Status;

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("no cluster to talk to: {0}\nset KUBECONFIG, or name a file with --kubeconfig")]
    NoConfig(String),
    #[error(
        "the cluster at {server} does not answer: {cause}\ncheck that it runs and that --context is the one you mean"
    )]
    NoCluster { server: String, cause: String },
    #[error(
        "the cluster at {0} knows no ShopDeployments\ninstall the operator, which brings them: docs/operating.md, Install"
    )]
    NoCrd(String),
    #[error("there is no shop {name} in namespace {namespace}{hint}")]
    NoShop { name: String, namespace: String, hint: String },
    #[error("the cluster at {server} does not know you ({message})\nlog in again, or choose another --context")]
    Unknown { server: String, message: String },
    #[error("you may not {doing}: {message}\nask who runs the cluster for that right, or choose another --context")]
    Forbidden { doing: String, message: String },
    #[error("cannot {doing}: {message}")]
    Refused { doing: String, message: String },
    #[error("cannot {doing}")]
    Other {
        doing: String,
        #[source]
        source: kube::Error,
    },
}

impl Problem {
    /// What the API server at `server` said to what was being done (as in "you may not …").
    pub fn of(server: &str, doing: &str, error: kube::Error) -> Self {
        let doing = doing.to_owned();
        match error {
            kube::Error::Api(status) => Self::said(server, doing, &status),
            kube::Error::HyperError(_) | kube::Error::Service(_) => {
                Self::NoCluster { server: server.to_owned(), cause: shop_runtime::telemetry::chain(&error) }
            }
            source => Self::Other { doing, source },
        }
    }

    fn said(server: &str, doing: String, status: &Status) -> Self {
        let message = status.message.clone();
        match status.code {
            401 => Self::Unknown { server: server.to_owned(), message },
            403 => Self::Forbidden { doing, message },
            _ => Self::Refused { doing, message },
        }
    }

    /// A shop that is not there, with what may have been meant.
    pub fn no_shop(name: &str, namespace: &str, (here, elsewhere): (&[String], &[String])) -> Self {
        let near: Vec<_> = here.iter().filter(|other| strsim::jaro_winkler(name, other) > 0.8).cloned().collect();
        let hint = if !near.is_empty() {
            format!("\ndid you mean {}?", near.join(" or "))
        } else if !elsewhere.is_empty() {
            format!("\nthere is one in {}: say so with -n", elsewhere.join(" and in "))
        } else if here.is_empty() {
            "\nthere are no shops in it: say which namespace with -n, `kubectl get shops -A` shows them all".to_owned()
        } else {
            format!("\nthere are {}", here.join(", "))
        };
        Self::NoShop { name: name.to_owned(), namespace: namespace.to_owned(), hint }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_slip(&["demo", "other"], &[], "did you mean demo?")]
    #[case::elsewhere(&["other"], &["xhipment"], "there is one in xhipment: say so with -n")]
    #[case::none_here(&[], &[], "there are no shops in it: say which namespace with -n, `kubectl get shops -A` shows them all")]
    #[case::others(&["one", "two"], &[], "there are one, two")]
    fn a_shop_that_is_not_there(#[case] here: &[&str], #[case] elsewhere: &[&str], #[case] hint: &str) {
        let [here, elsewhere] =
            [here, elsewhere].map(|names| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        let told = Problem::no_shop("demoo", "shops", (&here, &elsewhere)).to_string();
        assert_eq!(told, format!("there is no shop demoo in namespace shops\n{hint}"));
    }

    #[rstest]
    #[case(401, "the cluster at https://c does not know you (no)\n")]
    #[case(403, "you may not read the shop: no\n")]
    #[case(422, "cannot read the shop: no")]
    fn refusals(#[case] code: u16, #[case] begins: &str) {
        let status = Status { code, message: "no".to_owned(), ..Status::default() };
        let told = Problem::of("https://c", "read the shop", kube::Error::Api(Box::new(status))).to_string();
        assert!(told.starts_with(begins), "{told}");
    }
}
