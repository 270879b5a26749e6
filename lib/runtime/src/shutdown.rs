//! Leaving in order: a signal starts the drain, tracked tasks finish their work, then the process ends.

use std::{future::Future, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The process's way out; clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    draining: CancellationToken,
    finished: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A shutdown that only [`Shutdown::drain`] starts.
    pub fn manual() -> Self {
        Self { draining: CancellationToken::new(), finished: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// A shutdown that SIGTERM or SIGINT starts.
    pub fn on_signal() -> std::io::Result<Self> {
        let shutdown = Self::manual();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let draining = shutdown.draining.clone();
        shutdown.spawn_detached(async move {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "draining");
            draining.cancel();
        });
        Ok(shutdown)
    }

    /// Cancelled as soon as the process should take no new work.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Cancelled when all tracked work is done.
    pub fn finished(&self) -> CancellationToken {
        self.finished.clone()
    }

    /// Starts the drain, as a signal would.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Runs work that must end before the process does.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let task = self.tasks.track_future(task);
        tokio::spawn(task)
    }

    /// Runs work that the process need not wait for.
    pub fn spawn_detached<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        tokio::spawn(task)
    }

    /// Waits for the signal, then for all tracked tasks, at most `grace`. False when some were still running.
    pub async fn wait(&self, grace: Duration) -> bool {
        self.draining.cancelled().await;
        self.tasks.close();
        let in_time = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        self.finished.cancel();
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_tracked_work_but_not_for_ever() {
        let shutdown = Shutdown::manual();
        let (finish, work) = tokio::sync::oneshot::channel::<()>();
        shutdown.spawn(work);
        shutdown.drain();
        assert!(!shutdown.wait(Duration::from_millis(10)).await);
        finish.send(()).unwrap();
        assert!(shutdown.wait(Duration::from_secs(10)).await);
        assert!(shutdown.finished().is_cancelled());
    }
}
