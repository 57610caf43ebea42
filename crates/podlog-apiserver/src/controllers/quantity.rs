//! Amounts of resources, such as `500m` or `1Gi`.

/// An amount in billionths of its unit, rounded up; `None` when the text is no amount.
///
/// Grammar as `k8s.io/apimachinery/pkg/api/resource`.
pub(crate) fn nano(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (binary, decimal) = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => (0, suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok().filter(|e| e.abs() <= 27)?),
    };
    scale(number, binary, decimal + 9)
}

fn scale(number: &str, binary: u32, decimal: i32) -> Option<i128> {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut value: i128 = format!("{whole}{fraction}").parse().ok()?;
    value = value.checked_mul(1 << binary)?;
    let exponent = decimal - i32::try_from(fraction.len()).ok()?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    let value = if exponent >= 0 {
        value.checked_mul(power)?
    } else {
        value.div_euclid(power) + i128::from(value % power != 0)
    };
    Some(sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        const ONE: i128 = 1_000_000_000;
        let rows = [
            ("0", Some(0)),
            ("1", Some(ONE)),
            ("500m", Some(ONE / 2)),
            ("0.5", Some(ONE / 2)),
            (".5", Some(ONE / 2)),
            ("1.", Some(ONE)),
            ("-2", Some(-2 * ONE)),
            ("1Ki", Some(1024 * ONE)),
            ("1.5Gi", Some(1536 * 1024 * 1024 * ONE)),
            ("1k", Some(1000 * ONE)),
            ("1e3", Some(1000 * ONE)),
            ("12E2", Some(1200 * ONE)),
            ("1E", Some(ONE * 1_000_000_000_000_000_000)),
            ("100n", Some(100)),
            ("0.1n", Some(1)),
            ("", None),
            ("x", None),
            ("1x", None),
            ("1e99", None),
            ("--1", None),
        ];
        for (text, expected) in rows {
            assert_eq!(nano(text), expected, "{text}");
        }
    }
}
