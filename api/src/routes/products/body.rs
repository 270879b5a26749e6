//! What staff say of a product, whole or in part.

use rust_decimal::Decimal;
use shop_domain::{
    money::{Currency, Money},
    order::FieldFault,
};
use utoipa::ToSchema;

use crate::{
    extract::{Fields, FromFields},
    problem::Problem,
    service::catalogue::{MAX_DESCRIPTION, MAX_NAME, ProductFacts, ProductPatch},
};

/// What staff say of a product.
#[derive(Debug, ToSchema)]
pub struct ProductBody {
    #[schema(example = "Wireless Mouse", min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    name: String,
    #[schema(max_length = 5000)]
    description: String,
    /// In major units.
    #[schema(value_type = f64, example = 29.99, minimum = 0)]
    price: Decimal,
}

/// What staff change of a product: at least one of its fields; the rest stays.
#[derive(Debug, ToSchema)]
pub struct ProductPatchBody {
    #[schema(example = "Wireless Mouse", min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    name: Option<String>,
    #[schema(max_length = 5000)]
    description: Option<String>,
    /// In major units.
    #[schema(value_type = Option<f64>, example = 29.99, minimum = 0)]
    price: Option<Decimal>,
}

impl FromFields for ProductBody {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.text("name").map(|name| checked_name(fields, &name));
        let description = fields.text("description").map(|text| checked_description(fields, text));
        let price = fields.decimal("price");
        Some(Self { name: name?, description: description?, price: price? })
    }
}

impl FromFields for ProductPatchBody {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.optional_text("name").map(|name| checked_name(fields, &name));
        let description = fields.optional_text("description").map(|text| checked_description(fields, text));
        let price = fields.optional_decimal("price");
        Some(Self { name, description, price })
    }
}

fn checked_name(fields: &mut Fields<'_>, name: &str) -> String {
    let name = name.trim().to_owned();
    if name.is_empty() || name.chars().count() > MAX_NAME {
        fields.fault("name", format!("must have 1 to {MAX_NAME} characters"));
    }
    if name.chars().any(char::is_control) {
        fields.fault("name", "must not have control characters");
    }
    name
}

fn checked_description(fields: &mut Fields<'_>, description: String) -> String {
    if description.chars().count() > MAX_DESCRIPTION {
        fields.fault("description", format!("must have at most {MAX_DESCRIPTION} characters"));
    }
    description
}

impl ProductBody {
    pub fn facts(self, currency: Currency) -> Result<ProductFacts, Problem> {
        Ok(ProductFacts { name: self.name, description: self.description, price: money(self.price, currency)? })
    }
}

impl ProductPatchBody {
    pub fn patch(self, currency: Currency) -> Result<ProductPatch, Problem> {
        let Self { name, description, price } = self;
        if name.is_none() && description.is_none() && price.is_none() {
            return Err(Problem::invalid(vec![FieldFault::new(
                "",
                "give at least one of name, description and price",
            )]));
        }
        let price = price.map(|price| money(price, currency)).transpose()?;
        Ok(ProductPatch { name, description, price })
    }
}

fn money(price: Decimal, currency: Currency) -> Result<Money, Problem> {
    Money::from_decimal(price, currency).map_err(|error| Problem::field("/price", &error))
}
