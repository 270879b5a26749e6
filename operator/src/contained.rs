//! Whether a desired object is already contained in the live one: an apply that changes nothing is still a write.

use serde_json::Value;

/// True where everything `desired` says holds in `live`, which may say more: defaults, and other managers' fields.
pub fn contained(desired: &Value, live: Option<&Value>) -> bool {
    match (desired, live) {
        (Value::Null, _) => true,
        (Value::Object(fields), None) => fields.values().all(|field| contained(field, None)),
        (Value::Array(items), None) => items.is_empty(),
        (_, None) => false,
        (Value::Object(fields), Some(Value::Object(found))) => {
            fields.iter().all(|(key, field)| contained(field, found.get(key)))
        }
        (Value::Array(items), Some(Value::Array(found))) => list_contained(items, found),
        (Value::String(wanted), Some(Value::String(found))) => wanted == found || same_quantity(wanted, found),
        (wanted, Some(found)) => wanted == found,
    }
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

/// The API server writes quantities in its own way: 0.5 becomes 500m, 1024Mi becomes 1Gi.
fn same_quantity(a: &str, b: &str) -> bool {
    match (quantity(a), quantity(b)) {
        (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 1e-9,
        _ => false,
    }
}

/// The value of a quantity as the API server reads it; `None` for what is none, or below zero.
pub fn quantity(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("", 1.0),
    ];
    let number = |digits: &str| {
        let plain =
            digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
        let starts = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
        if plain && starts { digits.parse::<f64>().ok() } else { None }
    };
    SUFFIXES.iter().find_map(|(suffix, factor)| Some(number(text.strip_suffix(suffix)?)? * factor))
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
    #[case::cpu(json!("0.5"), json!("500m"), true)]
    #[case::memory(json!("1024Mi"), json!("1Gi"), true)]
    #[case::not_memory(json!("1000Mi"), json!("1Gi"), false)]
    #[case::exponent(json!("128e6"), json!("128M"), true)]
    #[case::no_quantity(json!("1a"), json!("1"), false)]
    fn containment(#[case] desired: Value, #[case] live: Value, #[case] expected: bool) {
        assert_eq!(contained(&desired, Some(&live)), expected);
    }
}
