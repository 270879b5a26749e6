//! How the signing keys are changed without a refused token: accept the next key everywhere, sign with it, drop the old one
//! after one token life. Pure: what is known goes in, the next step comes out.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Beyond a token's life: what the api allows for clocks that differ, once for its own and once for ours.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
/// So long pods may go on giving tokens of a longer life after it was shortened: their rollout may be stuck.
const ROLLOUT: SignedDuration = SignedDuration::from_hours(24);

/// How far a rotation has come, as the keys' Secret is annotated with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The text that asked for it.
    pub request: String,
    pub step: Step,
    /// Id of the key that it brings.
    pub key: String,
    /// When the step began.
    pub since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The next key is accepted, the old one signs: until every pod knows the next one.
    Accept,
    /// The next key signs: until every pod signs with it.
    Sign,
    /// No token is signed with the old key any more: until the last one has expired.
    Expire,
    Done,
}

/// How long tokens live, and those that may be left from a time when they lived longer: as the keys' Secret is annotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLife {
    minutes: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    longer: Option<Longer>,
}

/// Tokens of this life may be left until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Longer {
    minutes: i32,
    until: Timestamp,
}

impl TokenLife {
    /// What is to be noted now that tokens live for this long: nothing where it is noted.
    pub fn noted(known: Option<&Self>, minutes: i32, now: Timestamp) -> Option<Self> {
        let Some(known) = known else { return Some(Self { minutes, longer: None }) };
        let longest = known.longest(now);
        let longer = || {
            let left = SignedDuration::from_mins(longest.into()) + ROLLOUT;
            // A time that no clock can show is far enough.
            let until = now.checked_add(left).unwrap_or(Timestamp::MAX);
            Longer { minutes: longest, until }
        };
        (minutes != known.minutes).then(|| Self { minutes, longer: (longest > minutes).then(longer) })
    }

    /// Minutes that the longest token lives which may be valid now.
    pub fn longest(&self, now: Timestamp) -> i32 {
        let longer = self.longer.as_ref().filter(|longer| now < longer.until);
        longer.map_or(self.minutes, |longer| longer.minutes.max(self.minutes))
    }
}

/// The keys as a pod reports them: ids, never keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyIds {
    pub signing_key: String,
    pub accepted_keys: Vec<String>,
}

/// A pod that may check or sign tokens, and what it reports; nothing where it does not answer.
#[derive(Clone, Debug)]
pub struct PodKeys {
    pub pod: String,
    pub keys: Option<KeyIds>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The text of the annotation; any new text starts one rotation.
    pub request: Option<&'a str>,
    /// Of the longest token there may be.
    pub token_life: SignedDuration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// No rotation is under way, and none is asked for.
    Rest,
    /// Make a key and accept it.
    Start,
    /// Take this step.
    Take(Step),
    /// Not yet: why, and how long at least.
    Wait(String, Option<SignedDuration>),
}

/// The next step. A rotation that has begun is finished before another begins.
pub fn next_step(known: Option<&Rotation>, wanted: &Wanted<'_>, pods: &[PodKeys], now: Timestamp) -> Next {
    let open = known.filter(|rotation| rotation.step != Step::Done);
    let Some(rotation) = open else {
        let request = wanted.request.filter(|text| !text.is_empty());
        let news = request.is_some_and(|text| known.is_none_or(|rotation| rotation.request != text));
        return if news { Next::Start } else { Next::Rest };
    };
    let key = &rotation.key;
    match rotation.step {
        Step::Accept => every(pods, Step::Sign, key, |keys| keys.accepted_keys.contains(key)),
        Step::Sign => every(pods, Step::Expire, key, |keys| keys.signing_key == *key),
        Step::Expire => {
            let left = wanted.token_life + LEEWAY - now.duration_since(rotation.since);
            if left.is_positive() {
                Next::Wait("the last tokens of the old key expire".to_owned(), Some(left))
            } else {
                Next::Take(Step::Done)
            }
        }
        Step::Done => Next::Rest,
    }
}

/// The step where every pod's keys are as they must be, or the pods that are waited for.
fn every(pods: &[PodKeys], then: Step, key: &str, is_so: impl Fn(&KeyIds) -> bool) -> Next {
    let late: Vec<_> = pods.iter().filter(|pod| !pod.keys.as_ref().is_some_and(&is_so)).collect();
    if late.is_empty() {
        return Next::Take(then);
    }
    let names: Vec<_> = late.iter().take(3).map(|pod| pod.pod.as_str()).collect();
    let more = if late.len() > names.len() { format!(" and {} more", late.len() - names.len()) } else { String::new() };
    let verb = if then == Step::Sign { "accept" } else { "sign with" };
    let silent = late.iter().filter(|pod| pod.keys.is_none()).count();
    let advice = if silent == 0 {
        "the kubelet renews the file within two minutes".to_owned()
    } else {
        format!("{silent} of them do not answer on port 9090: look at these pods, or delete them")
    };
    Next::Wait(format!("these pods do not {verb} key {key} yet: {}{more}; {advice}", names.join(", ")), None)
}

/// The content of the api's keys file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysFile {
    pub signing: String,
    pub keys: BTreeMap<String, String>,
}

impl KeysFile {
    /// A file of one key.
    pub fn new(key: String) -> Self {
        Self { signing: "k1".to_owned(), keys: [("k1".to_owned(), key)].into() }
    }

    /// Accepts a further key, under an id above all others; gives the id.
    pub fn accept(&mut self, key: String) -> String {
        let numbers = self.keys.keys().filter_map(|id| id.strip_prefix('k')?.parse::<u64>().ok());
        let id = format!("k{}", numbers.max().unwrap_or(0).saturating_add(1));
        self.keys.insert(id.clone(), key);
        id
    }

    /// Signs with a key that is accepted; false where there is no such key.
    pub fn sign_with(&mut self, id: &str) -> bool {
        let known = self.keys.contains_key(id);
        if known {
            id.clone_into(&mut self.signing);
        }
        known
    }

    /// Accepts the signing key alone.
    pub fn drop_old(&mut self) {
        let signing = self.signing.clone();
        self.keys.retain(|id, _| *id == signing);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIFE: SignedDuration = SignedDuration::from_secs(900);

    fn rotation(step: Step) -> Rotation {
        let since = Timestamp::from_second(1_000).unwrap();
        Rotation { request: "one".to_owned(), step, key: "k2".to_owned(), since }
    }

    /// A pod that signs with the first of these keys and accepts them all; `-` is one that does not answer.
    fn pod(keys: &str) -> PodKeys {
        let ids: Vec<_> = keys.split(' ').map(str::to_owned).collect();
        let report = KeyIds { signing_key: ids[0].clone(), accepted_keys: ids };
        PodKeys { pod: format!("pod[{keys}]"), keys: (keys != "-").then_some(report) }
    }

    fn step(known: Option<&Rotation>, request: Option<&str>, pods: &[&str], seconds: i64) -> Next {
        let pods: Vec<_> = pods.iter().map(|keys| pod(keys)).collect();
        let now = Timestamp::from_second(1_000 + seconds).unwrap();
        next_step(known, &Wanted { request, token_life: LIFE }, &pods, now)
    }

    #[rstest]
    #[case::nothing_asked(None, None, Next::Rest)]
    #[case::an_empty_text_asks_nothing(None, Some(""), Next::Rest)]
    #[case::asked(None, Some("one"), Next::Start)]
    #[case::done_already(Some(rotation(Step::Done)), Some("one"), Next::Rest)]
    #[case::asked_again(Some(rotation(Step::Done)), Some("two"), Next::Start)]
    #[case::the_annotation_is_gone(Some(rotation(Step::Done)), None, Next::Rest)]
    fn any_new_text_starts_one_rotation(
        #[case] known: Option<Rotation>,
        #[case] request: Option<&str>,
        #[case] next: Next,
    ) {
        assert_eq!(step(known.as_ref(), request, &["k1"], 0), next);
    }

    #[rstest]
    #[case::all_know_it(Step::Accept, &["k1 k2", "k1 k2"], Some(Step::Sign))]
    #[case::one_does_not(Step::Accept, &["k1 k2", "k1"], None)]
    #[case::one_is_silent(Step::Accept, &["k1 k2", "-"], None)]
    #[case::no_pods_at_all(Step::Accept, &[], Some(Step::Sign))]
    #[case::all_sign(Step::Sign, &["k2 k1", "k2 k1"], Some(Step::Expire))]
    #[case::one_signs_with_the_old(Step::Sign, &["k2 k1", "k1 k2"], None)]
    #[case::one_is_silent_still(Step::Sign, &["-"], None)]
    fn a_step_waits_for_every_pod(#[case] at: Step, #[case] pods: &[&str], #[case] then: Option<Step>) {
        // Time alone moves neither of the two; another request or its end does not either.
        for (request, seconds) in [(Some("one"), 0), (Some("two"), 86_400), (None, 86_400)] {
            let next = step(Some(&rotation(at)), request, pods, seconds);
            assert_eq!(matches!(next, Next::Take(_)), then.is_some(), "{next:?}");
            if let Some(then) = then {
                assert_eq!(next, Next::Take(then));
            }
        }
    }

    #[rstest]
    #[case::at_once(0, Some(960))]
    #[case::nearly(959, Some(1))]
    #[case::after_the_life_and_the_leeway(960, None)]
    #[case::a_clock_that_was_set_back(-100, Some(1060))]
    fn the_old_key_outlives_its_last_token(#[case] seconds: i64, #[case] left: Option<i64>) {
        let next = step(Some(&rotation(Step::Expire)), Some("one"), &["-"], seconds);
        let waits = match next {
            Next::Wait(_, wait) => wait,
            next => {
                assert_eq!(next, Next::Take(Step::Done));
                None
            }
        };
        assert_eq!(waits, left.map(SignedDuration::from_secs));
    }

    /// Hours and the minutes noted then; and hours later the longest life.
    #[rstest]
    #[case::never_changed(&[(0, 15)], &[(0, 15), (99, 15)])]
    #[case::raised(&[(0, 15), (1, 60)], &[(1, 60)])]
    #[case::lowered(&[(0, 1440), (1, 15)], &[(1, 1440), (48, 1440), (49, 15)])]
    #[case::lowered_twice(&[(0, 1440), (1, 60), (2, 15)], &[(2, 1440), (49, 1440), (50, 15)])]
    #[case::lowered_and_raised(&[(0, 1440), (1, 15), (2, 60)], &[(2, 1440), (50, 60)])]
    fn a_shortened_life_is_remembered_until_the_last_longer_token_is_gone(
        #[case] changes: &[(i64, i32)],
        #[case] longest: &[(i64, i32)],
    ) {
        let at = |hours: i64| Timestamp::from_second(hours * 3600).unwrap();
        let mut life = None;
        for (hours, minutes) in changes {
            life = TokenLife::noted(life.as_ref(), *minutes, at(*hours));
            assert_eq!(TokenLife::noted(life.as_ref(), *minutes, at(*hours)), None, "noted once");
        }
        let life = life.unwrap();
        let found: Vec<_> = longest.iter().map(|(hours, _)| (*hours, life.longest(at(*hours)))).collect();
        assert_eq!(found, longest);
        assert_eq!(serde_json::from_str::<TokenLife>(&serde_json::to_string(&life).unwrap()).unwrap(), life);
    }

    #[test]
    fn those_that_are_waited_for_are_named() {
        let Next::Wait(why, None) = step(Some(&rotation(Step::Accept)), None, &["k1", "-", "k1", "k1"], 0) else {
            panic!()
        };
        assert!(why.contains("accept key k2 yet: pod[k1], pod[-], pod[k1] and 1 more"), "{why}");
        assert!(why.contains("1 of them do not answer"), "{why}");
    }

    #[test]
    fn a_file_goes_from_one_key_to_the_next() {
        let mut file = KeysFile::new("a".to_owned());
        assert_eq!(file.accept("b".to_owned()), "k2");
        assert_eq!((file.signing.as_str(), file.keys.len()), ("k1", 2), "accepted, not yet signed with");
        assert!(!file.sign_with("k7") && file.sign_with("k2"));
        assert_eq!((file.signing.as_str(), file.keys.len()), ("k2", 2), "the old one is still accepted");
        file.drop_old();
        assert_eq!(file.keys, [("k2".to_owned(), "b".to_owned())].into());
        assert_eq!(file.accept("c".to_owned()), "k3", "an id is never used again");
    }
}
