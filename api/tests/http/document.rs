//! The OpenAPI document itself: whether it says all that its readers need, and only what is so.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use shop_api::problem::codes::CODES;

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];
const PROBLEM: &str = "application/problem+json";

fn document() -> Value {
    serde_json::to_value(shop_api::router::document()).unwrap()
}

/// Every operation, under its method and path.
fn operations(document: &Value) -> BTreeMap<String, &Value> {
    let items = document["paths"].as_object().unwrap().iter();
    let named = |path: &str, method: &str| format!("{method} {path}");
    items.flat_map(|(path, item)| METHODS.iter().filter_map(move |m| Some((named(path, m), item.get(m)?)))).collect()
}

/// Every answer of every operation: where it is, its status, and what is said of it.
fn answers(document: &Value) -> Vec<(String, u16, &Value)> {
    let all = operations(document).into_iter().flat_map(|(name, operation)| {
        let answers = operation["responses"].as_object().unwrap().iter();
        answers.map(move |(status, answer)| (format!("{name} → {status}"), status.parse().unwrap(), answer))
    });
    all.collect()
}

#[test]
fn every_operation_has_a_tag_and_a_summary() {
    for (name, operation) in operations(&document()) {
        assert!(
            operation["tags"].as_array().is_some_and(|tags| tags.len() == 1),
            "{name} has no tag, or more than one"
        );
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{name} has no summary");
    }
}

#[test]
fn every_answer_is_described_and_no_status_stands_for_all_others() {
    let document = document();
    for (name, _, answer) in answers(&document) {
        assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} is not described");
        assert!(answer["headers"].get("X-Request-Id").is_some(), "{name} has no X-Request-Id");
    }
}

#[test]
fn every_refusal_is_a_problem_whose_codes_are_listed() {
    let document = document();
    for (name, status, answer) in answers(&document).into_iter().filter(|(_, status, _)| *status >= 400) {
        let types: Vec<_> = answer["content"].as_object().into_iter().flat_map(Map::keys).collect();
        assert_eq!(types, [PROBLEM], "{name}");
        let text = answer["description"].as_str().unwrap();
        let listed = CODES.iter().filter(|code| text.contains(&format!("- `{}`: ", code.name)));
        let listed: Vec<_> =
            listed.inspect(|code| assert!(code.statuses.contains(&status), "{name}: {code:?}")).collect();
        assert!(!listed.is_empty(), "{name} lists no code");
        let waits = matches!(status, 429 | 503);
        assert_eq!(answer["headers"].get("Retry-After").is_some(), waits, "Retry-After of {name}");
    }
}

#[test]
fn every_call_can_be_limited_and_fail_and_says_what_it_reads() {
    let document = document();
    for (name, operation) in operations(&document) {
        let has = |status: &str| operation["responses"].get(status).is_some();
        assert!(has("500") && has("503"), "{name}");
        assert_eq!(has("429"), name.contains("/api/v1/"), "{name}");
        assert_eq!(has("413") && has("415"), operation.get("requestBody").is_some(), "{name}");
        if operation.get("security").is_none() || has("403") {
            assert!(has("401"), "{name}");
        }
        let reads_query = operation["parameters"].as_array().is_some_and(|all| all.iter().any(|p| p["in"] == "query"));
        assert!(has("400") || !reads_query, "{name}");
    }
}

#[test]
fn every_code_is_of_some_answer_and_in_the_schema_of_problems() {
    let document = document();
    let texts: Vec<_> =
        answers(&document).into_iter().map(|(_, status, answer)| (status, &answer["description"])).collect();
    // 405 is the answer to a method that no operation has.
    for code in CODES.iter().filter(|code| code.name != "method_not_allowed") {
        for status in code.statuses {
            let marker = format!("- `{}`: ", code.name);
            let told = texts.iter().any(|(of, text)| of == status && text.as_str().unwrap().contains(&marker));
            assert!(told, "no call answers {status} {}", code.name);
        }
    }
    let named = &document["components"]["schemas"]["ProblemBody"]["properties"]["code"]["enum"];
    let named: Vec<_> = named.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(named, CODES.iter().map(|code| code.name).collect::<Vec<_>>());
}

#[test]
fn every_body_has_an_example_of_its_schema() {
    let document = document();
    for (name, operation) in operations(&document) {
        for (_, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            conforms(&document, &name, &content["schema"], &content["example"]);
        }
    }
    for (name, status, answer) in answers(&document) {
        for (kind, content) in answer["content"].as_object().into_iter().flatten() {
            match kind.as_str() {
                PROBLEM => has_examples(&document, &name, status, answer),
                "application/json" => conforms(&document, &name, &content["schema"], &content["example"]),
                // Events: the example is the stream's text, the schema that of one event.
                _ => assert!(content["example"].is_string(), "{name} has no example"),
            }
        }
    }
}

/// Whether each code that the answer lists has an example that is such a problem.
#[track_caller]
fn has_examples(document: &Value, at: &str, status: u16, answer: &Value) {
    let (text, content) = (answer["description"].as_str().unwrap(), &answer["content"][PROBLEM]);
    let listed = CODES.iter().map(|code| code.name).filter(|name| text.contains(&format!("- `{name}`: ")));
    let listed: BTreeSet<_> = listed.collect();
    let examples = content["examples"].as_object().unwrap_or_else(|| panic!("{at} has no examples"));
    assert_eq!(examples.keys().map(String::as_str).collect::<BTreeSet<_>>(), listed, "{at}");
    for (code, example) in examples {
        let name = example["$ref"].as_str().unwrap().strip_prefix("#/components/examples/").unwrap();
        let problem = &document["components"]["examples"][name]["value"];
        assert_eq!((&problem["code"], &problem["status"]), (&code.as_str().into(), &status.into()), "{at}");
        conforms(document, &format!("{at}: {code}"), &content["schema"], problem);
    }
}

#[test]
fn the_examples_are_of_calls_that_can_answer_so() {
    let document = document();
    let can_answer = |path: &str, (status, code): (&str, &str)| {
        document["paths"][path]
            .as_object()
            .unwrap()
            .values()
            .any(|operation| !operation["responses"][status]["content"][PROBLEM]["examples"][code].is_null())
    };
    for (name, example) in document["components"]["examples"].as_object().unwrap() {
        let (status, code) = name.split_once('_').unwrap();
        let instance: Vec<_> = example["value"]["instance"].as_str().unwrap().split('/').collect();
        let is_path = |path: &str| {
            let parts: Vec<_> = path.split('/').collect();
            parts.len() == instance.len() && parts.iter().zip(&instance).all(|(a, b)| a == b || a.starts_with('{'))
        };
        let mut paths = document["paths"].as_object().unwrap().keys().filter(|path| is_path(path));
        // 405 is the answer to a method that no operation has.
        let answered = paths.any(|path| code == "method_not_allowed" || can_answer(path, (status, code)));
        assert!(answered, "no call to {} answers {name}", instance.join("/"));
    }
}

/// Whether a value has the type, the fields and the names that a schema asks for, as far as the document uses schemas.
#[track_caller]
fn conforms(document: &Value, at: &str, schema: &Value, value: &Value) {
    let schema = resolved(document, schema, value);
    let kinds: Vec<_> = schema["type"].as_array().map_or_else(|| vec![&schema["type"]], |kinds| kinds.iter().collect());
    assert!(kinds.iter().any(|kind| is_of(kind.as_str().unwrap_or_default(), value)), "{at}: {value} is no {schema}");
    if let Some(known) = schema["enum"].as_array() {
        assert!(known.contains(value), "{at}: {value} is none of {known:?}");
    }
    for entry in value.as_array().into_iter().flatten() {
        conforms(document, &format!("{at}[]"), &schema["items"], entry);
    }
    let Some(fields) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains_key(name.as_str().unwrap()), "{at} has no {name}");
    }
    for (name, value) in fields {
        let schema = schema["properties"].get(name).unwrap_or_else(|| panic!("{at}: nothing is said of {name}"));
        conforms(document, &format!("{at}/{name}"), schema, value);
    }
}

/// The schema that is meant: behind a reference, or, of null and another, the one that fits the value.
fn resolved<'a>(document: &'a Value, schema: &'a Value, value: &Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str() {
        return resolved(document, &document["components"]["schemas"][name.rsplit('/').next().unwrap()], value);
    }
    let Some(choices) = schema["oneOf"].as_array() else { return schema };
    let fitting = choices.iter().find(|choice| (choice["type"] == "null") == value.is_null());
    fitting.map_or(schema, |choice| resolved(document, choice, value))
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// A client that is told of a field that is not there would be right to send it.
#[test]
fn requests_have_no_other_fields_than_the_document_names() {
    let document = document();
    let mut closed = BTreeSet::new();
    for (name, operation) in operations(&document) {
        for (_, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            let schema = &content["schema"];
            let reference = schema["$ref"].as_str().or_else(|| {
                schema["oneOf"].as_array().into_iter().flatten().find_map(|choice| choice["$ref"].as_str())
            });
            let schema = reference.unwrap_or_else(|| panic!("{name}")).rsplit('/').next().unwrap();
            assert_eq!(document["components"]["schemas"][schema]["additionalProperties"], false, "{name}: {schema}");
            closed.insert(schema.to_owned());
        }
    }
    assert!(closed.len() >= 10, "{closed:?}");
    assert_eq!(document["components"]["schemas"]["CreateItem"]["additionalProperties"], false);
}

const GUIDE: &str = include_str!("../../../docs/api.md");

/// The rows of the guide's tables, cell by cell.
fn rows() -> Vec<Vec<&'static str>> {
    let rows = GUIDE.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").collect()).collect()
}

#[test]
fn the_guide_has_every_code_as_it_is() {
    let documented =
        rows().into_iter().filter(|row| row.len() == 4 && row[0].starts_with('`')).map(|row| row.join(" | "));
    let known = CODES.iter().map(|code| {
        let statuses: Vec<_> = code.statuses.iter().map(u16::to_string).collect();
        format!("`{}` | {} | {} | {}", code.name, statuses.join(", "), code.when, code.remedy)
    });
    assert_eq!(
        documented.collect::<Vec<_>>(),
        known.collect::<Vec<_>>(),
        "docs/api.md and api/src/problem/codes.rs differ"
    );
}

#[test]
fn the_guide_has_every_call_under_its_tag() {
    let (mut documented, mut tag) = (BTreeSet::new(), "");
    for line in GUIDE.lines() {
        tag = line.strip_prefix("### ").unwrap_or(tag);
        let call = line.strip_prefix("| ").and_then(|row| row.split(" | ").next()).unwrap_or_default();
        if let Some((method, path)) = call.split_once(" /") {
            let path = path.strip_prefix('/').map_or(format!("/api/v1/{path}"), |root| format!("/{root}"));
            documented.insert(format!("{tag}: {} {path}", method.to_lowercase()));
        }
    }
    let document = document();
    let described = operations(&document)
        .into_iter()
        .map(|(name, operation)| format!("{}: {name}", operation["tags"][0].as_str().unwrap()));
    assert_eq!(documented, described.collect());
}
