//! The description of the API: what is not generated from the handlers.

mod answers;
mod bodies;
mod examples;

use utoipa::{
    Modify, OpenApi,
    openapi::{
        ComponentsBuilder,
        example::ExampleBuilder,
        path::Operation,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use crate::{problem, routes::order_events::StatusEvent};

/// The head of the document; `router` adds the paths.
#[derive(OpenApi)]
#[openapi(
    info(title = "Xhipment", description = "A shop: accounts, catalogue, stock and orders.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    modifiers(&Schemes),
    security(("bearer" = [])),
    components(schemas(StatusEvent)),
    tags(
        (name = "auth", description = "Accounts and sessions"),
        (name = "users", description = "Accounts and roles, for staff"),
        (name = "products", description = "The catalogue"),
        (name = "inventory", description = "Stock, for staff"),
        (name = "orders", description = "Orders"),
        (name = "admin", description = "Running the shop, for staff"),
        (name = "system", description = "The service itself"),
    ),
)]
pub struct Document;

/// Adds what holds of every call, or of every body.
pub fn complete(document: &mut utoipa::openapi::OpenApi) {
    let (examples, mut operations) = (examples::table(), Vec::new());
    for (path, item) in &mut document.paths.paths {
        let all: [Option<&mut Operation>; 5] =
            [item.get.as_mut(), item.put.as_mut(), item.post.as_mut(), item.patch.as_mut(), item.delete.as_mut()];
        for operation in all.into_iter().flatten() {
            answers::complete(path, operation);
            examples::add(&examples, operation);
            operations.push(operation.clone());
        }
    }
    let problems = problem::examples::examples().into_iter();
    let problems = problems.map(|(name, body)| (name, ExampleBuilder::new().value(Some(body)).build().into()));
    document.components.get_or_insert_default().examples.extend(problems);
    bodies::close(document, &operations);
    bodies::name_codes(document);
}

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let cookie = ApiKey::Cookie(ApiKeyValue::new("refreshToken"));
        let components = document.components.take().unwrap_or_default();
        let components = ComponentsBuilder::from(components)
            .security_scheme("bearer", SecurityScheme::Http(bearer))
            .security_scheme("refreshCookie", SecurityScheme::ApiKey(cookie));
        document.components = Some(components.build());
    }
}
