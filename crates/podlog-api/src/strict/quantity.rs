//! Amounts (`k8s.io/apimachinery/pkg/api/resource.Quantity`): checked, and in canonical form.

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

/// Which family of suffixes an amount is written in; kept when it is written again.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// The canonical form: no fraction, the largest suffix that leaves a whole number, the format of the original.
///
/// Amounts finer than a nano are rounded away from zero, amounts above 2^63-1 are capped.
pub(crate) fn canonical(text: &str) -> Result<String, &'static str> {
    let (nanos, format) = parse(text)?;
    Ok(write(nanos, format))
}

/// The amount in billionths, to compare amounts; `None` for text that is no amount.
pub(crate) fn nanos_of(text: &str) -> Option<i128> {
    parse(text).ok().map(|(nanos, _)| nanos)
}

fn parse(text: &str) -> Result<(i128, Format), &'static str> {
    let digits_end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || *c == '.' || (*at == 0 && matches!(c, '+' | '-'))))
        .map_or(text.len(), |(at, _)| at);
    let (number, suffix) = text.split_at(digits_end);
    let (scale, format) = scale(suffix)?;
    Ok((nanos(number, scale)?, format))
}

/// `(numerator, denominator)` of a suffix, and its family.
fn scale(suffix: &str) -> Result<((i128, i128), Format), &'static str> {
    if let Some(at) = DECIMAL.iter().position(|unit| *unit == suffix) {
        return Ok((power(10, 3 * (at as i32 - ONE as i32)), Format::Decimal));
    }
    if let Some(at) = BINARY.iter().position(|unit| *unit == suffix) {
        return Ok((power(1024, at as i32), Format::Binary));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(|| wrong(suffix))?;
    let exponent: i32 = exponent.parse().map_err(|_| wrong(suffix))?;
    Ok((power(10, exponent.clamp(-30, 30)), Format::Exponent))
}

fn wrong(suffix: &str) -> &'static str {
    let known = suffix.chars().all(|c| "eEinumkKMGTP+-0123456789".contains(c));
    if known { WRONG_SUFFIX } else { WRONG_FORMAT }
}

fn power(base: i128, exponent: i32) -> (i128, i128) {
    let magnitude = base.saturating_pow(exponent.unsigned_abs());
    if exponent < 0 { (1, magnitude) } else { (magnitude, 1) }
}

fn nanos(number: &str, (numerator, denominator): (i128, i128)) -> Result<i128, &'static str> {
    let (negative, unsigned) = match number.as_bytes() {
        [b'-', ..] => (true, &number[1..]),
        [b'+', ..] => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(WRONG_FORMAT);
    }
    let mut mantissa: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        mantissa = mantissa.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
    }
    let divisor = power(10, fraction.len().min(38) as i32).0.saturating_mul(denominator);
    let scaled = mantissa.saturating_mul(NANOS).saturating_mul(numerator);
    let limit = i128::from(i64::MAX).saturating_mul(NANOS);
    let nanos = (scaled / divisor + i128::from(scaled % divisor != 0)).min(limit);
    Ok(if negative { -nanos } else { nanos })
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
}
