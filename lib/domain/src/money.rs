//! Money: integer minor units inside, exact decimals outside. Never a float.

use std::{
    fmt::{self, Write},
    str::FromStr,
};

use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// An ISO 4217 currency: three upper-case letters and the number of digits after the point (its exponent).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a currency is three upper-case letters (ISO 4217), such as INR")]
pub struct InvalidCurrency;

impl Currency {
    /// Digits after the decimal point: 0 (yen), 3 (Kuwaiti dinar), 4 (Chilean unit of account) or 2.
    /// Source: ISO 4217 list one, column "minor unit".
    pub fn exponent(self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF" | b"UGX"
            | b"UYI" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            b"CLF" | b"UYW" => 4,
            _ => 2,
        }
    }
}

impl FromStr for Currency {
    type Err = InvalidCurrency;
    fn from_str(text: &str) -> Result<Self, InvalidCurrency> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(InvalidCurrency),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = InvalidCurrency;
    fn try_from(text: String) -> Result<Self, InvalidCurrency> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.0.map(char::from).into_iter().collect()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&letter| f.write_char(char::from(letter)))
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a decimal is not an amount of a currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("an amount must not be negative")]
    Negative,
    #[error("{currency} has {exponent} digits after the decimal point")]
    TooPrecise { currency: Currency, exponent: u32 },
    #[error("the amount is too large")]
    Overflow,
}

/// An amount in minor units (paise, cents) of the shop's one currency; never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Money(i64);

impl TryFrom<i64> for Money {
    type Error = MoneyError;
    fn try_from(minor: i64) -> Result<Self, MoneyError> {
        if minor < 0 { Err(MoneyError::Negative) } else { Ok(Self(minor)) }
    }
}

impl From<Money> for i64 {
    fn from(money: Money) -> i64 {
        money.0
    }
}

impl Money {
    pub const ZERO: Self = Self(0);

    /// Amount in minor units.
    pub fn minor(self) -> i64 {
        self.0
    }

    /// Reads a decimal amount of major units (`29.99`), exactly.
    pub fn from_decimal(amount: Decimal, currency: Currency) -> Result<Self, MoneyError> {
        if amount.is_sign_negative() && !amount.is_zero() {
            return Err(MoneyError::Negative);
        }
        let exponent = currency.exponent();
        let minor = amount.checked_mul(Decimal::from(10_i64.pow(exponent))).ok_or(MoneyError::Overflow)?;
        if !minor.is_integer() {
            return Err(MoneyError::TooPrecise { currency, exponent });
        }
        minor.to_i64().map(Self).ok_or(MoneyError::Overflow)
    }

    /// The decimal amount of major units, without trailing zeros (`1324`, `29.99`).
    pub fn to_decimal(self, currency: Currency) -> Decimal {
        Decimal::new(self.0, currency.exponent()).normalize()
    }

    /// `self · quantity`, or an error where it would overflow.
    pub fn times(self, quantity: u32) -> Result<Self, MoneyError> {
        self.0.checked_mul(i64::from(quantity)).map(Self).ok_or(MoneyError::Overflow)
    }

    /// Sum of amounts, or an error where it would overflow.
    pub fn sum(amounts: impl IntoIterator<Item = Self>) -> Result<Self, MoneyError> {
        amounts
            .into_iter()
            .try_fold(Self::ZERO, |total, amount| total.0.checked_add(amount.0).map(Self).ok_or(MoneyError::Overflow))
    }
}

/// A decimal as it stands in JSON: a plain number, read and written digit by digit, never through a float.
/// Works with `serde_json` readers and writers only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub Decimal);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        // The raw text is valid JSON; of that, only numbers begin so.
        if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return Err(de::Error::custom("expected a number"));
        }
        let parsed =
            if text.contains(['e', 'E']) { Decimal::from_scientific(text) } else { Decimal::from_str_exact(text) };
        parsed.map(Self).map_err(|_| de::Error::custom("the number has too many digits"))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(self.0.normalize().to_string()).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn currency(code: &str) -> Currency {
        code.parse().unwrap()
    }

    #[rstest]
    #[case("29.99", "INR", Ok(2999))]
    #[case("1324", "INR", Ok(132_400))]
    #[case("0.1", "INR", Ok(10))]
    #[case("1500", "JPY", Ok(1500))]
    #[case("1.234", "KWD", Ok(1234))]
    #[case("1.0", "JPY", Ok(1))]
    #[case("0.5", "JPY", Err(MoneyError::TooPrecise { currency: currency("JPY"), exponent: 0 }))]
    #[case("0.001", "INR", Err(MoneyError::TooPrecise { currency: currency("INR"), exponent: 2 }))]
    #[case("-1", "INR", Err(MoneyError::Negative))]
    #[case("92233720368547758.08", "INR", Err(MoneyError::Overflow))]
    #[case("92233720368547758.07", "INR", Ok(i64::MAX))]
    fn decimals_are_read_exactly(#[case] text: &str, #[case] code: &str, #[case] minor: Result<i64, MoneyError>) {
        assert_eq!(Money::from_decimal(text.parse().unwrap(), currency(code)).map(Money::minor), minor);
    }

    #[test]
    fn a_currency_is_written_as_it_was_read() {
        let read = currency("INR");
        assert_eq!(
            (read.to_string(), format!("{read:?}"), String::from(read)),
            ("INR".into(), "INR".into(), "INR".into())
        );
        assert_eq!(serde_json::to_string(&read).unwrap(), r#""INR""#);
    }

    #[rstest]
    #[case("inr")]
    #[case("IN")]
    #[case("EURO")]
    #[case("")]
    fn other_texts_are_no_currency(#[case] text: &str) {
        assert_eq!(text.parse::<Currency>(), Err(InvalidCurrency));
    }

    #[rstest]
    #[case("4324", Some("4324"))]
    #[case("4324.00", Some("4324"))]
    #[case("29.99", Some("29.99"))]
    #[case("0.1", Some("0.1"))]
    #[case("1e3", Some("1000"))]
    #[case("79228162514264337593543950335", Some("79228162514264337593543950335"))]
    #[case("792281625142643375935439503350", None)]
    #[case("\"4324\"", None)]
    #[case("true", None)]
    #[case("null", None)]
    fn json_numbers_pass_through_exactly(#[case] text: &str, #[case] out: Option<&str>) {
        #[derive(Deserialize, Serialize)]
        struct Body {
            total: Amount,
        }
        let read = serde_json::from_str::<Body>(&format!(r#"{{"total": {text}}}"#));
        assert_eq!(
            read.ok().map(|body| serde_json::to_string(&body).unwrap()),
            out.map(|n| format!(r#"{{"total":{n}}}"#))
        );
    }

    proptest! {
        #[test]
        fn every_amount_survives_the_way_out_and_back(minor in 0..=i64::MAX, code in "INR|JPY|KWD|CLF") {
            let (money, currency) = (Money::try_from(minor).unwrap(), currency(&code));
            prop_assert_eq!(Money::from_decimal(money.to_decimal(currency), currency), Ok(money));
        }

        #[test]
        fn sums_and_products_never_wrap(a in 0..=i64::MAX, b in 0..=i64::MAX, n in 0..=u32::MAX) {
            let (a, b) = (Money::try_from(a).unwrap(), Money::try_from(b).unwrap());
            match Money::sum([a, b]) {
                Ok(sum) => prop_assert_eq!(i128::from(sum.minor()), i128::from(a.minor()) + i128::from(b.minor())),
                Err(error) => prop_assert_eq!(error, MoneyError::Overflow),
            }
            if let Ok(product) = a.times(n) {
                prop_assert_eq!(i128::from(product.minor()), i128::from(a.minor()) * i128::from(n));
            }
        }
    }
}
