//! Whether a desired object is already contained in the live one: an apply that changes nothing is still a write.

use serde_json::{Map, Value};

/// True where everything `desired` says holds in `live`, which may say more: defaults, and other managers' fields.
pub fn contained(desired: &Value, live: Option<&Value>) -> bool {
    match (desired, live) {
        (Value::Null, _) => true,
        (Value::Object(fields), None) => fields.values().all(|field| contained(field, None)),
        (Value::Array(items), None) => items.is_empty(),
        (_, None) => false,
        (Value::Object(fields), Some(Value::Object(found))) => {
            fields.iter().all(|(key, field)| match (key.as_str(), field, found.get(key)) {
                ("limits" | "requests", Value::Object(wanted), Some(found)) => amounts_contained(wanted, found),
                (_, field, found) => contained(field, found),
            })
        }
        (Value::Array(items), Some(Value::Array(found))) => list_contained(items, found),
        (wanted, Some(found)) => wanted == found,
    }
}

/// The API server writes quantities in its own way: 0.5 becomes 500m, 1024Mi becomes 1Gi. Elsewhere a text is only itself.
fn amounts_contained(wanted: &Map<String, Value>, found: &Value) -> bool {
    wanted.iter().all(|(name, amount)| match (amount, found.get(name)) {
        (Value::String(wanted), Some(Value::String(found))) => same_quantity(wanted, found),
        (wanted, found) => contained(wanted, found),
    })
}

/// Lists of named things may hold others' things too, in any order; other lists must match item by item.
fn list_contained(items: &[Value], found: &[Value]) -> bool {
    let named = |item: &Value| item.get("name").is_some();
    if !items.is_empty() && items.iter().all(named) {
        items.iter().all(|item| contained(item, found.iter().find(|other| other.get("name") == item.get("name"))))
    } else {
        items.len() == found.len() && items.iter().zip(found).all(|(item, other)| contained(item, Some(other)))
    }
}

fn same_quantity(a: &str, b: &str) -> bool {
    a == b || matches!((quantity(a), quantity(b)), (Some(a), Some(b)) if a == b)
}

/// A quantity in billionths, rounded up, as the API server keeps no less. `None`: no quantity, or beyond all machines.
fn quantity(text: &str) -> Option<i128> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+')).len();
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // i128's own parser takes a leading plus, and no second one, nor a second dot.
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (tens, binary) = scale(suffix)?;
    let tens = tens + 9 - i32::try_from(fraction.len()).ok()?;
    let scaled = mantissa.checked_mul(1024_i128.checked_pow(binary)?)?;
    let power = 10_i128.checked_pow(tens.unsigned_abs())?;
    if tens < 0 { Some(scaled / power + i128::from(scaled % power != 0)) } else { scaled.checked_mul(power) }
}

/// What a suffix stands for, as powers of 10 and of 1024.
fn scale(suffix: &str) -> Option<(i32, u32)> {
    const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let place = |all: &[&str]| all.iter().position(|known| *known == suffix).and_then(|at| i32::try_from(at).ok());
    if let Some(at) = place(&DECIMAL) {
        return Some(((at - 3) * 3, 0));
    }
    if let Some(at) = place(&BINARY) {
        return Some((0, at.unsigned_abs() + 1));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((exponent, 0))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::same(json!({"a": 1}), json!({"a": 1}), true)]
    #[case::defaults_are_more(json!({"a": 1}), json!({"a": 1, "b": 2}), true)]
    #[case::changed(json!({"a": 1}), json!({"a": 2}), false)]
    #[case::missing(json!({"a": 1}), json!({}), false)]
    #[case::empty_is_nothing(json!({"a": {}, "b": [], "c": null}), json!({}), true)]
    #[case::nested_empty(json!({"a": {"b": {}}}), json!({}), true)]
    #[case::named_lists_in_any_order(
        json!([{"name": "x", "v": 1}, {"name": "y"}]),
        json!([{"name": "y"}, {"name": "injected"}, {"name": "x", "v": 1, "default": true}]),
        true
    )]
    #[case::named_item_gone(json!([{"name": "x"}]), json!([{"name": "y"}]), false)]
    #[case::plain_lists_match_exactly(json!(["a", "b"]), json!(["b", "a"]), false)]
    #[case::plain_list_grew(json!(["a"]), json!(["a", "b"]), false)]
    #[case::amounts(json!({"limits": {"cpu": "0.5"}}), json!({"limits": {"cpu": "500m", "memory": "1Gi"}}), true)]
    #[case::other_amounts(json!({"requests": {"cpu": "0.5"}}), json!({"requests": {"cpu": "501m"}}), false)]
    #[case::no_amounts(json!({"requests": {"cpu": "1"}}), json!({}), false)]
    #[case::a_text_is_no_quantity(json!({"name": "x", "value": "1000m"}), json!({"name": "x", "value": "1"}), false)]
    fn containment(#[case] desired: Value, #[case] live: Value, #[case] expected: bool) {
        assert_eq!(contained(&desired, Some(&live)), expected);
    }

    #[rstest]
    #[case("0.5", "500m", true)]
    #[case("1024Mi", "1Gi", true)]
    #[case("1.5Gi", "1536Mi", true)]
    #[case("0.1Gi", "107374182400m", true)]
    #[case("1e3", "1k", true)]
    #[case("1E3", "1000", true)]
    #[case("128e6", "128M", true)]
    #[case("1E", "1e18", true)]
    #[case("2500e-3", "2500m", true)]
    #[case("+2", "2", true)]
    #[case(".5", "0.50", true)]
    #[case("2.", "2", true)]
    #[case("0.1n", "1n", true)]
    #[case("0", "0Mi", true)]
    #[case("1Pi", "1024Ti", true)]
    #[case("1000Mi", "1Gi", false)]
    #[case("1Gi", "1073741825", false)]
    #[case("1a", "1", false)]
    #[case("", "0", false)]
    #[case("1.2.3", "1.23", false)]
    #[case("99999999999999999999Ei", "1", false)]
    fn quantities_are_compared_by_value(#[case] a: &str, #[case] b: &str, #[case] expected: bool) {
        assert_eq!(same_quantity(a, b), expected);
    }
}
