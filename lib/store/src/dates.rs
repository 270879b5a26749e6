//! BSON dates (milliseconds) for `jiff` times: `#[serde(with = "crate::dates")]`.

use jiff::Timestamp;
use mongodb::bson::DateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The BSON date of a time.
pub fn bson(at: Timestamp) -> DateTime {
    DateTime::from_millis(at.as_millisecond())
}

/// The time as the database keeps it: whole milliseconds.
pub fn whole_millis(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    bson(*at).serialize(serializer)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let date = DateTime::deserialize(deserializer)?;
    Timestamp::from_millisecond(date.timestamp_millis()).map_err(D::Error::custom)
}

/// The same for an optional time; with `#[serde(default)]` a missing field is `None`.
pub mod optional {
    use super::{DateTime, Deserialize, Deserializer, Error, Serialize, Serializer, Timestamp, bson};

    #[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        at.map(bson).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Option::<DateTime>::deserialize(deserializer)?
            .map(|date| Timestamp::from_millisecond(date.timestamp_millis()).map_err(D::Error::custom))
            .transpose()
    }
}
