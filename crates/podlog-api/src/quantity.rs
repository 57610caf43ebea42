//! Amounts of resources (`k8s.io/apimachinery/pkg/api/resource.Quantity`): read, compared, and in canonical form.

use serde_json::Value;

const WRONG_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const WRONG_SUFFIX: &str = "unable to parse quantity's suffix";

/// Units of a thousand each, from nano to exa.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// Position of "no suffix" in [`DECIMAL`].
const ONE: usize = 3;
/// Units of 1024 each.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

const NANOS: i128 = 1_000_000_000;
/// The largest amount there is.
const LIMIT: i128 = i64::MAX as i128 * NANOS;

/// An amount such as `500m`, `1Gi` or `1e3`, in billionths.
///
/// What is finer than a billionth is rounded away from zero, what is above 2^63-1 is capped.
///
/// ```
/// use podlog_api::quantity::Quantity;
///
/// let limit = Quantity::parse("1.5Gi").expect("an amount");
/// assert_eq!(limit.value(), 3 << 29);
/// assert!(Quantity::parse("64Mi") < Some(limit));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity(0);

    /// A whole number.
    pub fn whole(value: i64) -> Self {
        Quantity(i128::from(value) * NANOS)
    }

    /// `None` for text that is no amount.
    pub fn parse(text: &str) -> Option<Self> {
        parse(text).ok().map(|(nanos, _)| Quantity(nanos))
    }

    /// As it stands in an object: text, or a bare number.
    pub fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Quantity::parse(text),
            Value::Number(number) => Quantity::parse(&number.to_string()),
            _ => None,
        }
    }

    /// The amount in billionths.
    pub fn nanos(self) -> i128 {
        self.0
    }

    /// The amount in whole units, rounded up.
    pub fn value(self) -> i64 {
        ceiling(self.0, NANOS)
    }

    /// How many times `divisor` fits, rounded up; a zero divisor counts as 1.
    pub fn divided_by(self, divisor: Quantity) -> i64 {
        ceiling(self.0, if divisor.0 == 0 { NANOS } else { divisor.0 })
    }
}

fn ceiling(value: i128, divisor: i128) -> i64 {
    let quotient = value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0);
    i64::try_from(quotient).unwrap_or(if quotient < 0 { i64::MIN } else { i64::MAX })
}

/// Which family of suffixes an amount is written in; kept when it is written again.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// The canonical form: no fraction, the largest suffix that leaves a whole number, the format of the original.
pub(crate) fn canonical(text: &str) -> Result<String, &'static str> {
    let (nanos, format) = parse(text)?;
    Ok(write(nanos, format))
}

fn parse(text: &str) -> Result<(i128, Format), &'static str> {
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits_end);
    let (factor, format) = factor(suffix)?;
    let nanos = nanos(number, factor)?;
    Ok((if is_negative { -nanos } else { nanos }, format))
}

/// What a suffix multiplies by: powers of 1024 and of ten.
struct Factor {
    binary: u32,
    ten: i32,
}

fn factor(suffix: &str) -> Result<(Factor, Format), &'static str> {
    if let Some(at) = DECIMAL.iter().position(|unit| *unit == suffix) {
        return Ok((Factor { binary: 0, ten: 3 * (at as i32 - ONE as i32) }, Format::Decimal));
    }
    if let Some(at) = BINARY.iter().position(|unit| *unit == suffix) {
        return Ok((Factor { binary: at as u32, ten: 0 }, Format::Binary));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(|| wrong(suffix))?;
    let exponent: i64 = exponent.parse().map_err(|_| wrong(suffix))?;
    Ok((Factor { binary: 0, ten: exponent.clamp(-100, 100) as i32 }, Format::Exponent))
}

fn wrong(suffix: &str) -> &'static str {
    let known = suffix.chars().all(|c| "eEinumkKMGTP+-0123456789".contains(c));
    if known { WRONG_SUFFIX } else { WRONG_FORMAT }
}

fn nanos(number: &str, factor: Factor) -> Result<i128, &'static str> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(WRONG_FORMAT);
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    // More digits than these do not fit together with the powers of 1024, and only round.
    let kept = significant.len().min(if factor.binary == 0 { 38 } else { 20 });
    let exponent = factor.ten as i64 + 9 - fraction.len() as i64 + (digits.len() - kept) as i64;
    if kept as i64 + exponent > 29 {
        return Ok(LIMIT);
    }
    let mantissa: i128 = significant[..kept].parse().map_err(|_| WRONG_FORMAT)?;
    let mantissa = mantissa.saturating_mul(1024_i128.pow(factor.binary));
    // Below 10^29 or divided by more than any mantissa.
    let power = 10_i128.checked_pow(exponent.unsigned_abs().min(39) as u32);
    let nanos = match power {
        Some(power) if exponent >= 0 => mantissa.saturating_mul(power),
        Some(power) => {
            let is_rounded = mantissa % power != 0 || kept < significant.len();
            mantissa / power + i128::from(is_rounded)
        }
        None => 1,
    };
    Ok(nanos.min(LIMIT))
}

fn write(nanos: i128, format: Format) -> String {
    if nanos == 0 {
        return "0".into();
    }
    let whole = nanos / NANOS;
    let is_whole = nanos % NANOS == 0;
    match format {
        Format::Binary if is_whole && whole.abs() >= 1024 => {
            let (value, steps) = reduce(whole, 1024, BINARY.len() - 1);
            format!("{value}{}", BINARY[steps])
        }
        Format::Binary | Format::Decimal => {
            let (value, steps) = reduce(nanos, 1000, DECIMAL.len() - 1);
            format!("{value}{}", DECIMAL[steps])
        }
        Format::Exponent => {
            let (value, steps) = reduce(nanos, 1000, usize::MAX);
            match 3 * (steps as i32 - ONE as i32) {
                0 => value.to_string(),
                exponent => format!("{value}e{exponent}"),
            }
        }
    }
}

/// Divides by `base` while nothing is lost.
fn reduce(mut value: i128, base: i128, max_steps: usize) -> (i128, usize) {
    let mut steps = 0;
    while steps < max_steps && value % base == 0 {
        value /= base;
        steps += 1;
    }
    (value, steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        let rows = [
            ("1", Ok("1")),
            ("0", Ok("0")),
            ("0.5", Ok("500m")),
            ("1000", Ok("1k")),
            ("1024", Ok("1024")),
            ("100m", Ok("100m")),
            ("1000m", Ok("1")),
            ("1.5Gi", Ok("1536Mi")),
            ("2048Ki", Ok("2Mi")),
            ("0.5Ki", Ok("512")),
            ("1e3", Ok("1e3")),
            ("1E", Ok("1E")),
            ("12e6", Ok("12e6")),
            ("-5", Ok("-5")),
            (".5", Ok("500m")),
            ("1.", Ok("1")),
            ("0.1n", Ok("1n")),
            ("128974848", Ok("128974848")),
            ("99999999999999999999", Ok("9223372036854775807")),
            ("1.000000000000000000000000000000000000000000", Ok("1")),
            ("0.00000000000000000000000000000000000000000000000001", Ok("1n")),
            ("1.00000000000000000000000000001Gi", Ok("1073741824000000001n")),
            ("100000000000000000000000000000000000000000000e-44", Ok("1")),
            ("1000000000000000000000000000n", Ok("1E")),
            ("1e99999999999", Ok("9223372036854775807")),
            ("1e-99999999999", Ok("1e-9")),
            ("0e99999999999", Ok("0")),
            ("8Ei", Ok("9223372036854775807")),
            ("", Err(WRONG_FORMAT)),
            ("1.2.3", Err(WRONG_FORMAT)),
            ("abc", Err(WRONG_FORMAT)),
            ("1x", Err(WRONG_FORMAT)),
            ("1Mo", Err(WRONG_FORMAT)),
            ("1ki", Err(WRONG_SUFFIX)),
            ("1 Gi", Err(WRONG_FORMAT)),
        ];
        for (text, expected) in rows {
            assert_eq!(canonical(text), expected.map(str::to_owned), "{text:?}");
        }
    }
    #[test]
    fn values_are_rounded_up() {
        for (text, value) in [
            ("10Mi", Some(10 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("500m", Some(1)),
            ("100n", Some(1)),
            ("2E2", Some(200)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("-5", Some(-5)),
            ("-1500m", Some(-1)),
            ("+1", Some(1)),
            ("", None),
            ("Mi", None),
            ("10MB", None),
            ("--1", None),
            ("ten", None),
        ] {
            assert_eq!(Quantity::parse(text).map(Quantity::value), value, "{text}");
        }
        assert_eq!(Quantity::parse("500m").map(Quantity::nanos), Some(NANOS / 2));
    }

    #[test]
    fn dividing_rounds_up() {
        let q = |text| Quantity::parse(text).unwrap();
        for (value, divisor, expected) in
            [("1500m", "1", 2), ("1500m", "1m", 1500), ("64Mi", "1Mi", 64), ("65Mi", "1Gi", 1), ("5", "0", 5)]
        {
            assert_eq!(q(value).divided_by(q(divisor)), expected, "{value} / {divisor}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_and_its_canonical_form_are_the_same_amount(text in "[+-]?[0-9]{0,45}[.]?[0-9]{0,45}([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?") {
            if let Ok(canonical) = canonical(&text) {
                proptest::prop_assert_eq!(Quantity::parse(&text), Quantity::parse(&canonical), "{}", canonical);
            }
        }
    }
}
