//! The harness of the tests on a whole cluster: each test gets a shop of its own, in a namespace, database and queue
//! of its own, and leaves nothing behind. `cargo xtask test e2e` starts what it needs.

mod servers;
mod tested;

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use anyhow::Result;
use futures::FutureExt;
use serde_json::Value;

pub use self::tested::Tested;

/// The two products of the original's documented order, and their prices.
pub const DOCUMENTED: [(&str, u32); 2] = [("67c8830b7ef1b848ac52ebec", 1324), ("67c8830b7ef1b848ac52ebee", 1500)];
pub const LOCATION: &str = "bangalore";
/// Longest wait for anything that a healthy cluster does within seconds.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Runs a test with a shop that is Ready and has the two documented products, `stock` units of each.
/// Afterwards, also when it failed, everything of it is removed.
pub fn with_shop<F, T>(stock: i64, change: impl FnOnce(&mut Value), test: F)
where
    F: FnOnce(Arc<Tested>) -> T,
    T: Future<Output = Result<()>>,
{
    in_namespace(|tested| async move {
        tested.create_shop(change).await?;
        tested.ready().await?;
        tested.seed(stock).await?;
        test(tested).await
    });
}

/// Runs a test in a namespace with the Secrets of a shop, but no shop yet.
pub fn in_namespace<F, T>(test: F)
where
    F: FnOnce(Arc<Tested>) -> T,
    T: Future<Output = Result<()>>,
{
    shop_runtime::install_tls_provider();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let tested = Arc::new(Tested::new().await.expect("servers and a cluster for the test"));
        let tried = async {
            tested.prepare().await?;
            test(tested.clone()).await
        };
        let outcome = AssertUnwindSafe(tried).catch_unwind().await;
        if !matches!(outcome, Ok(Ok(()))) {
            eprintln!("{}", tested.describe().await);
        }
        let cleaned = tested.clean_up().await;
        match outcome {
            Ok(outcome) => outcome.expect("the test"),
            Err(panicked) => std::panic::resume_unwind(panicked),
        }
        cleaned.expect("cleaning up");
    });
}
