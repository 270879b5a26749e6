//! What the document says of answers that any call can give: statuses, problem codes, headers. What is a call's own stands
//! at its handler, and is kept.

use utoipa::openapi::{
    Content, HeaderBuilder, Object, Ref, RefOr, Response, Type, header::Header, path::Operation, path::ParameterIn,
};

use crate::problem::{
    codes::{CODES, Code, is_known},
    examples,
};

const PROBLEM: &str = "application/problem+json";

/// The codes of a status, where the handler names none.
const USUAL: &[(u16, &[&str])] = &[
    (400, &["invalid_request"]),
    (401, &["unauthenticated"]),
    (403, &["forbidden"]),
    (404, &["not_found"]),
    (413, &["too_large"]),
    (415, &["unsupported_media_type"]),
    (429, &["rate_limited"]),
    (500, &["internal"]),
    (503, &["unavailable", "timeout"]),
];

/// Adds to an operation under `path` what it can answer, as far as its handler does not say so.
pub fn complete(path: &str, operation: &mut Operation) {
    let limited = path.starts_with("/api/");
    for status in general(path, limited, operation) {
        operation.responses.responses.entry(status.to_string()).or_insert_with(|| Response::default().into());
    }
    for (status, response) in &mut operation.responses.responses {
        let (Ok(status), RefOr::T(response)) = (status.parse::<u16>(), response) else { continue };
        if status >= 400 {
            describe(status, response);
        } else if response.description.is_empty() {
            "Done".clone_into(&mut response.description);
        }
        add_headers(status, limited, response);
    }
}

/// The statuses that come from what stands before the handler: extractors and layers.
fn general(path: &str, limited: bool, operation: &Operation) -> Vec<u16> {
    let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    });
    let read = parameters.into_iter().any(|p| p.parameter_in == ParameterIn::Query || p.name == "If-Match");
    let body = operation.request_body.is_some();
    let mut statuses = vec![500, 503];
    statuses.extend((read || body).then_some(400));
    // What has not the form of an id cannot be there.
    statuses.extend(path.contains('{').then_some(404));
    statuses.extend(body.then_some([413, 415]).into_iter().flatten());
    // Without words of its own about security a call has the document's: a bearer token.
    statuses.extend(operation.security.is_none().then_some(401));
    statuses.extend(limited.then_some(429));
    statuses
}

/// Each code that the answer can have, and when; after it what the handler says.
fn describe(status: u16, response: &mut Response) {
    let words: Vec<_> = response.description.split(|c: char| c != '_' && !c.is_ascii_alphanumeric()).collect();
    let of_status = |code: &&Code| code.statuses.contains(&status);
    let named: Vec<_> = CODES.iter().filter(of_status).filter(|code| words.contains(&code.name)).collect();
    let usual = USUAL.iter().find(|(usual, _)| *usual == status).map_or::<&[&str], _>(&[], |(_, names)| names);
    let usual = CODES.iter().filter(|code| usual.contains(&code.name) && !named.iter().any(|n| n.name == code.name));
    // A handler that names codes of a 503 or 429 does so beside the usual ones.
    let all: Vec<_> = if named.is_empty() || matches!(status, 400 | 429 | 503) {
        usual.chain(named.iter().copied()).collect()
    } else {
        named
    };
    let list: Vec<_> = all.iter().map(|code| format!("- `{}`: {}", code.name, code.when)).collect();
    let said = std::mem::take(&mut response.description);
    let said = if said.split(", ").all(is_known) { String::new() } else { said };
    response.description = if said.is_empty() { list.join("\n") } else { format!("{said}\n\n{}", list.join("\n")) };
    let mut content = Content::new(Some(Ref::from_schema_name("ProblemBody")));
    let example = |code: &Code| Ref::new(format!("#/components/examples/{}", examples::name(status, code.name)));
    content.examples = all.iter().map(|code| (code.name.to_owned(), RefOr::Ref(example(code)))).collect();
    response.content.clear();
    response.content.insert(PROBLEM.to_owned(), content.into());
}

fn add_headers(status: u16, limited: bool, response: &mut Response) {
    let mut add = |name: &str, header: Header| {
        response.headers.entry(name.to_owned()).or_insert_with(|| header.into());
    };
    add("X-Request-Id", text("The id of the request: the client's own, if it sent one"));
    if limited {
        add(
            "RateLimit",
            text("Where the caller stands with the tightest limit: `\"<policy>\";r=<remaining>;t=<seconds>`"),
        );
        add("RateLimit-Policy", text("That limit: `\"<policy>\";q=<quota>;w=<seconds>`"));
    }
    if status == 401 {
        add("WWW-Authenticate", text("`Bearer`"));
    }
    if matches!(status, 429 | 503) {
        add("Retry-After", number("Seconds after which to try again"));
    }
}

fn text(description: &str) -> Header {
    HeaderBuilder::new().schema(Some(Object::with_type(Type::String))).description(Some(description)).build()
}

fn number(description: &str) -> Header {
    HeaderBuilder::new().schema(Some(Object::with_type(Type::Integer))).description(Some(description)).build()
}
