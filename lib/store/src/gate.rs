//! Whether MongoDB answers: asked all the time, so that no request has to wait to find out.
//! Says it; what is refused meanwhile is decided by whoever asks.

use std::{convert::Infallible, io, time::Duration};

use tokio::sync::watch;

use crate::{Store, StoreError};

/// Between two questions; with the time that an answer may take, an outage is noticed within a second.
const PAUSE: Duration = Duration::from_millis(200);
/// An answer may take so many ticks.
const TICKS: u32 = 14;
const TICK: Duration = Duration::from_millis(50);

/// Open while MongoDB answers, shut while it does not; neither until [`Store::watch`] knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<State>);

#[derive(Debug)]
enum State {
    Unknown,
    Open,
    /// Why, if it is known.
    Shut(Option<StoreError>),
}

impl State {
    fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    fn is_shut(&self) -> bool {
        matches!(self, Self::Shut(_))
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(State::Unknown))
    }

    /// Says that MongoDB could not be reached, or seems to hang. Opened again by the next answer.
    pub fn close(&self) {
        let shut = self.0.send_if_modified(|state| {
            let news = !state.is_shut();
            if news {
                *state = State::Shut(None);
            }
            news
        });
        if shut {
            tracing::warn!("a request failed: MongoDB counts as away until it answers");
        }
    }

    /// Waits until MongoDB answers.
    pub async fn opened(&self) {
        self.wait_until(State::is_open).await;
    }

    /// Waits until MongoDB does not answer.
    pub async fn shut(&self) {
        self.wait_until(State::is_shut).await;
    }

    /// Waits as long as MongoDB is known not to answer.
    pub(crate) async fn not_shut(&self) {
        self.wait_until(|state| !state.is_shut()).await;
    }

    /// Waits until MongoDB answers; `failed` is told why it does not, after each attempt.
    pub async fn first_contact(&self, mut failed: impl FnMut(&StoreError)) {
        self.wait_until(|state| {
            if let State::Shut(Some(why)) = state {
                failed(why);
            }
            state.is_open()
        })
        .await;
    }

    /// Runs a request while MongoDB answers: `Unavailable` at once when it does not, and as soon as it ceases to.
    /// A write that is given up may have happened.
    pub async fn guard<T>(&self, request: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.while_open(request).await.unwrap_or_else(|| Err(no_answer()))
    }

    /// The same for work of any kind: none when MongoDB does not answer. What waits on a connection whose other end is
    /// gone would wait for a quarter of an hour, and longer than the outage.
    pub async fn while_open<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.shut() => None,
            done = work => Some(done),
        }
    }

    /// Asks for ever.
    pub(crate) async fn watch(&self, store: &Store) -> Infallible {
        let mut first = std::pin::pin!(store.reach());
        let answer = if let Some(answer) = in_time(&mut first).await {
            answer
        } else {
            self.0.send_replace(State::Shut(None));
            // The driver says why only when it has given up.
            first.await
        };
        self.note(answer);
        loop {
            tokio::time::sleep(PAUSE).await;
            let answer = in_time(store.ping()).await;
            let answer = match answer.unwrap_or_else(|| Err(no_answer())) {
                Ok(()) if !self.is_open() => store.reach().await,
                known => known,
            };
            self.note(answer);
        }
    }

    fn is_open(&self) -> bool {
        self.0.borrow().is_open()
    }

    async fn wait_until(&self, reached: impl FnMut(&State) -> bool) {
        let mut state = self.0.subscribe();
        // The sender lives as long as this gate, so waiting cannot fail.
        let _reached = state.wait_for(reached).await;
    }

    fn note(&self, answer: Result<(), StoreError>) {
        let next = match answer {
            Ok(()) => State::Open,
            Err(error) => State::Shut(Some(error)),
        };
        let before = self.0.send_replace(next);
        match (&before, &*self.0.borrow()) {
            (State::Unknown | State::Shut(_), State::Open) => tracing::info!("MongoDB answers"),
            (State::Unknown | State::Open | State::Shut(None), State::Shut(Some(error))) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "MongoDB does not answer, asking again");
            }
            _ => {}
        }
    }
}

/// The answer, if it comes within [`TICKS`]. One that comes late is one tick: a process that is kept from its CPU, by its
/// limit or by others, must not take MongoDB for away.
async fn in_time<T>(answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    for _ in 0..TICKS {
        if let Ok(answer) = tokio::time::timeout(TICK, &mut answer).await {
            return Some(answer);
        }
    }
    None
}

fn no_answer() -> StoreError {
    mongodb::error::Error::from(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")).into()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn open() -> Gate {
        let gate = Gate::new();
        gate.note(Ok(()));
        gate
    }

    #[tokio::test]
    async fn what_waits_is_released_when_the_gate_shuts() {
        let gate = open();
        let waiting = gate.guard(std::future::pending::<Result<(), StoreError>>());
        let (released, ()) = tokio::join!(waiting, async { gate.close() });
        assert!(matches!(released, Err(StoreError::Unavailable(_))), "{released:?}");
    }

    #[tokio::test]
    async fn nothing_begins_while_the_gate_is_shut() {
        let gate = open();
        gate.close();
        let refused = gate.guard(async { unreachable!("the gate is shut") }).await;
        assert!(matches!(refused, Err::<(), _>(StoreError::Unavailable(_))), "{refused:?}");
        for gate in [open(), Gate::new()] {
            assert!(gate.guard(async { Ok(1) }).await.is_ok());
        }
    }

    #[tokio::test]
    async fn an_answer_must_come_in_time() {
        let asked = Instant::now();
        assert_eq!(in_time(std::future::pending::<()>()).await, None);
        assert!(asked.elapsed() >= TICK * TICKS);
        assert_eq!(in_time(async { 1 }).await, Some(1));
    }

    #[tokio::test]
    async fn time_in_which_the_process_does_not_run_does_not_count() {
        let starving = async {
            loop {
                std::thread::sleep(2 * TICK);
                tokio::task::yield_now().await;
            }
        };
        let late = async {
            tokio::time::sleep(TICK * (TICKS + 4)).await;
            1
        };
        tokio::select! {
            never = starving => never,
            answer = in_time(late) => assert_eq!(answer, Some(1)),
        }
    }

    #[tokio::test]
    async fn the_first_contact_says_why_it_takes_so_long() {
        let gate = Gate::new();
        let mut reasons = Vec::new();
        gate.note(Err(no_answer()));
        let contact = gate.first_contact(|why| reasons.push(why.to_string()));
        tokio::join!(contact, async { gate.note(Ok(())) });
        assert_eq!(reasons, ["MongoDB cannot be reached"]);
        gate.close();
        gate.shut().await;
        gate.note(Ok(()));
        gate.opened().await;
    }
}
