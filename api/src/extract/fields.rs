//! Reads JSON objects field by field and collects every fault, so that a client learns all of them at once.
//! Numbers are read as exact decimals: no value passes through a float.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::value::RawValue;
use shop_domain::{money::Amount, order::FieldFault};

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// A type that can be read from an object. None only together with at least one fault.
pub trait FromFields: Sized {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self>;
}

/// The fields of one object that have not been read yet.
#[derive(Debug)]
pub struct Fields<'a> {
    object: Object<'a>,
    /// JSON pointer of the object.
    at: String,
    faults: &'a mut Vec<FieldFault>,
}

/// Reads a whole body: all faults, or the value.
pub fn read<T: FromFields>(json: &str) -> Result<T, Vec<FieldFault>> {
    let object: Object<'_> = serde_json::from_str(json).map_err(|error| {
        let detail = if error.is_data() {
            "the body must be a JSON object".to_owned()
        } else {
            format!("malformed JSON at line {}, column {}", error.line(), error.column())
        };
        vec![FieldFault::new("", detail)]
    })?;
    let mut faults = Vec::new();
    let read = read_object(object, String::new(), &mut faults, T::from_fields);
    match read {
        Some(value) if faults.is_empty() => Ok(value),
        _ => Err(faults),
    }
}

fn read_object<T>(
    object: Object<'_>,
    at: String,
    faults: &mut Vec<FieldFault>,
    read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
) -> Option<T> {
    let mut fields = Fields { object, at, faults };
    let value = read(&mut fields);
    for name in std::mem::take(&mut fields.object).into_keys() {
        fields.fault(&name, "unknown field");
    }
    value
}

impl Fields<'_> {
    /// Notes what is wrong with a field.
    pub fn fault(&mut self, name: &str, detail: impl Into<String>) {
        let pointer = format!("{}/{}", self.at, escape(name));
        self.faults.push(FieldFault::new(pointer, detail));
    }

    /// Takes over faults that were found by someone else, unless their field has one already.
    pub fn merge(&mut self, faults: Vec<FieldFault>) {
        for fault in faults {
            let pointer = format!("{}{}", self.at, fault.pointer);
            if !self.faults.iter().any(|known| known.pointer == pointer) {
                self.faults.push(FieldFault { pointer, ..fault });
            }
        }
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        let value = self.required(name)?;
        self.as_text(name, value)
    }

    pub fn optional_text(&mut self, name: &str) -> Option<String> {
        let value = self.take(name)?;
        self.as_text(name, value)
    }

    /// An exact decimal.
    pub fn decimal(&mut self, name: &str) -> Option<Decimal> {
        let value = self.required(name)?;
        self.as_decimal(name, value)
    }

    pub fn optional_decimal(&mut self, name: &str) -> Option<Decimal> {
        let value = self.take(name)?;
        self.as_decimal(name, value)
    }

    /// A whole number; `2.0` is one.
    pub fn integer(&mut self, name: &str) -> Option<i64> {
        let number = self.decimal(name)?;
        let whole = number.is_integer().then(|| i64::try_from(number).ok()).flatten();
        if whole.is_none() {
            self.fault(name, "must be a whole number");
        }
        whole
    }

    /// A list of objects; entries with faults are left out.
    pub fn list<T>(&mut self, name: &str, read: impl Fn(&mut Fields<'_>) -> Option<T>) -> Option<Vec<T>> {
        let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(self.required(name)?.get()) else {
            self.fault(name, "must be a list");
            return None;
        };
        let mut values = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let at = format!("{}/{}/{index}", self.at, escape(name));
            match serde_json::from_str::<Object<'_>>(entry.get()) {
                Ok(object) => values.extend(read_object(object, at, self.faults, &read)),
                Err(_) => self.faults.push(FieldFault::new(at, "must be an object")),
            }
        }
        Some(values)
    }

    fn as_text(&mut self, name: &str, value: &RawValue) -> Option<String> {
        let text = serde_json::from_str(value.get()).ok();
        if text.is_none() {
            self.fault(name, "must be a string");
        }
        text
    }

    fn as_decimal(&mut self, name: &str, value: &RawValue) -> Option<Decimal> {
        let amount = serde_json::from_str::<Amount>(value.get()).ok();
        if amount.is_none() {
            let is_number = value.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
            self.fault(name, if is_number { "has too many digits" } else { "must be a number" });
        }
        amount.map(|amount| amount.0)
    }
}

impl<'a> Fields<'a> {
    /// The field, unless it is missing or null.
    fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.object.remove(name).filter(|value| value.get() != "null")
    }

    fn required(&mut self, name: &str) -> Option<&'a RawValue> {
        let value = self.take(name);
        if value.is_none() {
            self.fault(name, "is required");
        }
        value
    }
}

/// RFC 6901, 3.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Line {
        product: String,
        quantity: i64,
    }

    #[derive(Debug, PartialEq)]
    struct Order {
        place: String,
        total: Option<Decimal>,
        lines: Vec<Line>,
    }

    impl FromFields for Order {
        fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
            let place = fields.text("place");
            let total = fields.optional_decimal("total");
            let lines = fields.list("lines", |line| {
                let (product, quantity) = (line.text("product"), line.integer("quantity"));
                Some(Line { product: product?, quantity: quantity? })
            });
            Some(Self { place: place?, total, lines: lines? })
        }
    }

    fn order(json: &str) -> Result<Order, Vec<String>> {
        let faults =
            |faults: Vec<FieldFault>| faults.into_iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect();
        read(json).map_err(faults)
    }

    #[rstest]
    #[case("4324")]
    #[case("4324.00")]
    #[case("4.324e3")]
    fn totals_are_read_exactly(#[case] total: &str) {
        let read = order(&format!(r#"{{"place":"x","total":{total},"lines":[]}}"#)).unwrap();
        assert_eq!(read.total, Some(Decimal::from(4324)));
    }

    #[test]
    fn no_float_is_in_between() {
        let read = order(r#"{"place":"x","total":79228162514264337593543950.335,"lines":[]}"#).unwrap();
        assert_eq!(read.total.unwrap().to_string(), "79228162514264337593543950.335");
        let read = order(r#"{"place":"x","total":29.99,"lines":[]}"#).unwrap();
        assert_eq!(read.total, Some(Decimal::new(2999, 2)));
    }

    #[rstest]
    #[case("[]", &[" the body must be a JSON object"])]
    #[case("", &[" malformed JSON at line 1, column 0"])]
    #[case("{\"place\":}", &[" malformed JSON at line 1, column 10"])]
    #[case("{}", &["/place is required", "/lines is required"])]
    #[case(r#"{"place":1,"total":"4","lines":{}}"#, &["/place must be a string", "/total must be a number", "/lines must be a list"])]
    #[case(r#"{"place":"x","lines":[{"product":"p","quantity":1.5},3]}"#, &["/lines/0/quantity must be a whole number", "/lines/1 must be an object"])]
    #[case(r#"{"place":"x","lines":[{"product":"p","quantity":1,"colour":2}],"a/b":1}"#, &["/lines/0/colour unknown field", "/a~1b unknown field"])]
    #[case(r#"{"place":"\ud800","lines":[]}"#, &["/place must be a string"])]
    #[case(r#"{"place":null,"lines":[]}"#, &["/place is required"])]
    #[case(r#"{"place":"x","total":1.00000000000000000000000000000001,"lines":[]}"#, &["/total has too many digits"])]
    #[case(r#"{"place":"x","total":1e400,"lines":[]}"#, &["/total has too many digits"])]
    fn all_faults_are_found(#[case] json: &str, #[case] faults: &[&str]) {
        assert_eq!(order(json).unwrap_err(), faults);
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_decimal() {
        assert_eq!(order(r#"{"place":"x","lines":[{"product":"p","quantity":2.0}]}"#).unwrap().lines[0].quantity, 2);
    }
}
