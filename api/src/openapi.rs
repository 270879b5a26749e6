//! The description of the API: what is not generated from the handlers.

use utoipa::{
    Modify, OpenApi,
    openapi::{
        ComponentsBuilder, Content, Ref, ResponseBuilder,
        path::Operation,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

/// The head of the document; `router` adds the paths.
#[derive(OpenApi)]
#[openapi(
    info(title = "Xhipment", description = "A shop: accounts, catalogue, stock and orders.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    modifiers(&Schemes),
    security(("bearer" = [])),
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

/// Any call can fail in ways that have nothing to do with it (limits, outages): each such answer is a problem.
pub fn add_problems(document: &mut utoipa::openapi::OpenApi) {
    for item in document.paths.paths.values_mut() {
        let operations: [Option<&mut Operation>; 5] =
            [item.get.as_mut(), item.put.as_mut(), item.post.as_mut(), item.patch.as_mut(), item.delete.as_mut()];
        for operation in operations.into_iter().flatten() {
            let problem = ResponseBuilder::new()
                .description("Any other error")
                .content("application/problem+json", Content::new(Some(Ref::from_schema_name("ProblemBody"))));
            operation.responses.responses.insert("default".to_owned(), problem.build().into());
        }
    }
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
