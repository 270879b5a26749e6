//! A queue, its messages and its worker pods, moved on from event to event. Knows no rule of scaling.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
};

use shop_operator::scale::Depth;

use super::trace::Message;

/// Microseconds.
type Micros = u64;

/// How pods work, start and end.
#[derive(Clone, Copy, Debug)]
pub struct Plant {
    /// Messages that one pod works on at once.
    pub concurrency: usize,
    /// From the creation of a pod until it takes messages.
    pub startup: Micros,
    /// From the order to stop until what is in hand is handed back.
    pub grace: Micros,
}

/// Which pods end when there are to be fewer. Those that are not ready always go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// As the shop's scaler marks them: idle ones, then those with the least in hand, then the newest.
    LeastBusy,
    /// As a `ReplicaSet` does by itself.
    Newest,
}

/// What a rule can see, and what happened since it last looked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    pub seconds: f64,
    pub depth: Depth,
    /// Pods there are to be.
    pub replicas: u32,
    pub ready: u32,
    pub busy_pods: u32,
    /// Messages in hand of pods that go on.
    pub busy: u64,
    /// The mean of `busy` since the last look.
    pub mean_busy: f64,
    pub completed: u64,
    pub service_seconds: f64,
    pub startup_seconds: Option<f64>,
}

/// What has become of messages and pods so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub arrived: u64,
    pub completed: u64,
    /// In hand of a pod when it was told to stop.
    pub disturbed: u64,
    /// Of these: not done within the grace period, handed back and worked on anew.
    pub cut_off: u64,
    pub pod_micros: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ready(u32),
    /// A message is done, if its delivery is still this one.
    Done {
        pod: u32,
        message: usize,
        delivery: u32,
    },
    GraceEnds(u32),
}

#[derive(Debug)]
struct Pod {
    created: Micros,
    ready: bool,
    leaving: bool,
    held: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Delivery {
    number: u32,
    began: Option<Micros>,
}

#[derive(Debug)]
pub struct World<'a> {
    plant: Plant,
    messages: &'a [Message],
    now: Micros,
    tally: Tally,
    deliveries: Vec<Delivery>,
    waiting: VecDeque<usize>,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    sequence: u64,
    pods: BTreeMap<u32, Pod>,
    created: u32,
    /// Messages in hand of pods that go on.
    busy: u64,
    /// Ready pods with a hand free, by what they hold.
    free: BTreeSet<(usize, u32)>,
    since_look: SinceLook,
}

#[derive(Clone, Copy, Debug, Default)]
struct SinceLook {
    at: Micros,
    busy_micros: u64,
    completed: u64,
    service: Micros,
    started: u64,
}

impl<'a> World<'a> {
    /// With so many pods, which are ready.
    pub fn new(plant: Plant, messages: &'a [Message], pods: u32) -> Self {
        let mut world = Self {
            plant,
            messages,
            now: 0,
            tally: Tally::default(),
            deliveries: vec![Delivery::default(); messages.len()],
            waiting: VecDeque::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            pods: BTreeMap::new(),
            created: 0,
            busy: 0,
            free: BTreeSet::new(),
            since_look: SinceLook::default(),
        };
        for _ in 0..pods {
            let pod = world.create();
            world.becomes_ready(pod);
        }
        // Nobody saw them start.
        world.since_look = SinceLook::default();
        world
    }

    /// Moves on to a moment, through all that happens until then.
    pub fn advance(&mut self, until: Micros) {
        loop {
            let arrival = self.messages.get(self.arrived()).map(|message| message.arrives);
            let event = self.events.peek().map(|Reverse((at, ..))| *at);
            let Some(next) = arrival.into_iter().chain(event).min().filter(|next| *next <= until) else { break };
            self.pass(next);
            if arrival == Some(next) {
                self.waiting.push_back(self.arrived());
                self.tally.arrived += 1;
            } else if let Some(Reverse((.., event))) = self.events.pop() {
                self.happens(event);
            }
            self.hand_out();
        }
        self.pass(until);
    }

    /// Has pods created, or told to stop.
    pub fn resize(&mut self, replicas: u32, leaving: Leaving) {
        let mut staying: Vec<_> = self.pods.iter().filter(|(_, pod)| !pod.leaving).map(|(id, _)| *id).collect();
        for _ in staying.len()..replicas as usize {
            self.create();
        }
        if staying.len() <= replicas as usize {
            return;
        }
        staying.sort_by_key(|id| {
            let pod = &self.pods[id];
            let held = if leaving == Leaving::LeastBusy { pod.held.len() } else { 0 };
            (pod.ready, held, Reverse(*id))
        });
        staying.truncate(staying.len() - replicas as usize);
        for id in staying {
            self.stop(id);
        }
    }

    /// What there is to see; what happened since the last look is told once.
    #[expect(clippy::cast_precision_loss, reason = "counts of a simulation")]
    pub fn look(&mut self) -> Look {
        let since = std::mem::replace(&mut self.since_look, SinceLook { at: self.now, ..SinceLook::default() });
        let staying = || self.pods.values().filter(|pod| !pod.leaving);
        let count = |pods: usize| u32::try_from(pods).unwrap_or(u32::MAX);
        let visible = self.waiting.len() as u64;
        let in_flight = self.pods.values().map(|pod| pod.held.len() as u64).sum();
        let elapsed = self.now - since.at;
        Look {
            seconds: self.now as f64 / 1e6,
            depth: Depth { visible, in_flight, delayed: 0 },
            replicas: count(staying().count()),
            ready: count(staying().filter(|pod| pod.ready).count()),
            busy_pods: count(staying().filter(|pod| !pod.held.is_empty()).count()),
            busy: self.busy,
            mean_busy: if elapsed == 0 { self.busy as f64 } else { since.busy_micros as f64 / elapsed as f64 },
            completed: since.completed,
            service_seconds: since.service as f64 / 1e6,
            startup_seconds: (since.started > 0).then_some(self.plant.startup as f64 / 1e6),
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn replicas(&self) -> u32 {
        u32::try_from(self.pods.values().filter(|pod| !pod.leaving).count()).unwrap_or(u32::MAX)
    }

    /// Seconds that the oldest waiting message has waited.
    #[expect(clippy::cast_precision_loss, reason = "a week of microseconds fits into 53 bits")]
    pub fn oldest(&self) -> f64 {
        self.waiting.front().map_or(0.0, |message| (self.now - self.messages[*message].arrives) as f64 / 1e6)
    }

    /// The tally, with the time of the pods there are.
    pub fn tally(&self) -> Tally {
        let running: u64 = self.pods.values().map(|pod| self.now - pod.created).sum();
        Tally { pod_micros: self.tally.pod_micros + running, ..self.tally }
    }

    /// Microseconds from the arrival of every message to the beginning of its last delivery, or until now.
    pub fn waits(&self) -> Vec<Micros> {
        let arrived = self.messages.iter().zip(&self.deliveries).take(self.arrived());
        arrived.map(|(message, delivery)| delivery.began.unwrap_or(self.now) - message.arrives).collect()
    }

    fn arrived(&self) -> usize {
        usize::try_from(self.tally.arrived).unwrap_or(usize::MAX)
    }

    fn pass(&mut self, to: Micros) {
        self.since_look.busy_micros += (to - self.now) * self.busy;
        self.now = to;
    }

    fn create(&mut self) -> u32 {
        let id = self.created;
        self.created += 1;
        self.pods.insert(id, Pod { created: self.now, ready: false, leaving: false, held: Vec::new() });
        self.schedule(self.plant.startup, Event::Ready(id));
        id
    }

    fn becomes_ready(&mut self, id: u32) {
        let Some(pod) = self.pods.get_mut(&id).filter(|pod| !pod.ready) else { return };
        pod.ready = true;
        self.since_look.started += 1;
        self.free.insert((0, id));
    }

    fn stop(&mut self, id: u32) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        pod.leaving = true;
        let held = pod.held.len();
        self.free.remove(&(held, id));
        self.tally.disturbed += held as u64;
        self.busy -= held as u64;
        if held == 0 {
            self.end(id);
        } else {
            self.schedule(self.plant.grace, Event::GraceEnds(id));
        }
    }

    fn end(&mut self, id: u32) {
        let Some(pod) = self.pods.remove(&id) else { return };
        self.tally.pod_micros += self.now - pod.created;
        self.tally.cut_off += pod.held.len() as u64;
        for message in pod.held {
            self.deliveries[message].began = None;
            self.waiting.push_front(message);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Ready(id) => self.becomes_ready(id),
            Event::GraceEnds(id) => self.end(id),
            Event::Done { pod: id, message, delivery } => {
                let Some(pod) = self.pods.get_mut(&id) else { return };
                if self.deliveries[message].number != delivery {
                    return;
                }
                let before = pod.held.len();
                pod.held.retain(|held| *held != message);
                self.tally.completed += 1;
                self.since_look.completed += 1;
                self.since_look.service += self.messages[message].service;
                if !pod.leaving {
                    self.busy -= 1;
                    self.free.remove(&(before, id));
                    self.free.insert((before - 1, id));
                } else if pod.held.is_empty() {
                    self.end(id);
                }
            }
        }
    }

    /// Gives what waits to the pods that hold the least.
    fn hand_out(&mut self) {
        while !self.waiting.is_empty() {
            let Some((held, id)) = self.free.pop_first() else { return };
            let (Some(message), Some(pod)) = (self.waiting.pop_front(), self.pods.get_mut(&id)) else { return };
            pod.held.push(message);
            self.busy += 1;
            if held + 1 < self.plant.concurrency {
                self.free.insert((held + 1, id));
            }
            let delivery = &mut self.deliveries[message];
            *delivery = Delivery { number: delivery.number + 1, began: Some(self.now) };
            let done = Event::Done { pod: id, message, delivery: delivery.number };
            self.schedule(self.messages[message].service, done);
        }
    }

    fn schedule(&mut self, after: Micros, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + after, self.sequence, event)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Micros = 1_000_000;
    const PLANT: Plant = Plant { concurrency: 2, startup: 5 * SECOND, grace: 3 * SECOND };

    fn message(arrives: Micros, service: Micros) -> Message {
        Message { arrives: arrives * SECOND, service: service * SECOND }
    }

    #[test]
    fn messages_wait_for_a_hand_and_pods_for_their_start() {
        let messages = [message(0, 10), message(0, 10), message(0, 1)];
        let mut world = World::new(PLANT, &messages, 1);
        world.advance(SECOND);
        assert_eq!((world.waiting(), world.oldest()), (1, 1.0));
        world.resize(2, Leaving::Newest);
        world.advance(7 * SECOND);
        let look = world.look();
        assert_eq!((look.ready, look.completed, look.depth.in_flight), (2, 1, 2));
        assert_eq!(look.startup_seconds, Some(5.0));
        assert_eq!(world.waits(), [0, 0, 6 * SECOND]);
        assert_eq!(world.tally().pod_micros, 13 * SECOND);
    }

    #[test]
    fn a_pod_that_goes_finishes_within_its_grace_or_hands_back() {
        let messages = [message(0, 2), message(0, 100)];
        let mut world = World::new(PLANT, &messages, 1);
        world.advance(SECOND);
        world.resize(0, Leaving::LeastBusy);
        world.advance(20 * SECOND);
        let tally = world.tally();
        assert_eq!((tally.disturbed, tally.completed, tally.cut_off, world.waiting()), (2, 1, 1, 1));
        assert_eq!(tally.pod_micros, 4 * SECOND);
    }

    #[test]
    fn who_leaves_is_the_difference() {
        // The older pod has nothing in hand once its message is done.
        let messages = [message(0, 1), message(0, 50)];
        for (leaving, disturbed) in [(Leaving::LeastBusy, 0), (Leaving::Newest, 1)] {
            let mut world = World::new(PLANT, &messages, 2);
            world.advance(10 * SECOND);
            world.resize(1, leaving);
            assert_eq!(world.tally().disturbed, disturbed, "{leaving:?}");
        }
    }

    proptest! {
        /// Whatever is ordered when, every message is completed, waiting or in hand, and is completed in the end.
        #[test]
        fn no_message_is_lost(
            arrivals in prop::collection::vec((0..60_u64, 0..20_u64), 0..100),
            orders in prop::collection::vec((0..6_u32, any::<bool>()), 60),
        ) {
            let mut messages: Vec<_> = arrivals.into_iter().map(|(at, service)| message(at, service)).collect();
            messages.sort_by_key(|message| message.arrives);
            let mut world = World::new(PLANT, &messages, 1);
            for (second, (replicas, idle_first)) in (1_u64..).zip(orders) {
                world.advance(second * SECOND);
                world.resize(replicas, if idle_first { Leaving::LeastBusy } else { Leaving::Newest });
                let (look, tally) = (world.look(), world.tally());
                prop_assert_eq!(look.replicas, replicas);
                prop_assert_eq!(tally.arrived, tally.completed + look.depth.visible + look.depth.in_flight);
                prop_assert!(tally.cut_off <= tally.disturbed);
            }
            world.resize(5, Leaving::Newest);
            world.advance(3000 * SECOND);
            prop_assert_eq!(world.tally().completed, messages.len() as u64);
        }
    }
}
