//! Kubernetes' resource quantities (`apimachinery/pkg/api/resource`): `10Mi`, `500m`, `1e3`.

/// A quantity in billionths, exact over the range that quantities have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(i128);

const NANO: i128 = 1_000_000_000;

impl Quantity {
    /// A whole number.
    pub(crate) fn whole(value: i64) -> Self {
        Quantity(i128::from(value) * NANO)
    }

    /// Parses; `None` when the text is no quantity or out of range.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (sign, body) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
        let (number, suffix) = body.split_at(end);
        let nanos = decimal_nanos(number)?;
        let scaled = scale(nanos, suffix)?;
        Some(Quantity(sign * scaled))
    }

    /// The value in whole units, rounded up.
    pub(crate) fn value(self) -> i64 {
        ceiling(self.0, NANO)
    }

    /// How many times `divisor` fits, rounded up; a zero divisor counts as 1.
    pub(crate) fn divided_by(self, divisor: Quantity) -> i64 {
        ceiling(self.0, if divisor.0 == 0 { NANO } else { divisor.0 })
    }
}

fn ceiling(value: i128, divisor: i128) -> i64 {
    let quotient = value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0);
    i64::try_from(quotient).unwrap_or(if quotient < 0 { i64::MIN } else { i64::MAX })
}

fn decimal_nanos(number: &str) -> Option<i128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(NANO)?;
    let mut unit = NANO;
    for digit in part.bytes() {
        unit /= 10;
        nanos += i128::from(digit.checked_sub(b'0').filter(|d| *d < 10)?) * unit;
    }
    Some(nanos)
}

fn scale(nanos: i128, suffix: &str) -> Option<i128> {
    let binary = |power: u32| nanos.checked_mul(1024i128.pow(power));
    let decimal = |power: u32| nanos.checked_mul(1000i128.pow(power));
    match suffix {
        "" => Some(nanos),
        "n" => Some(nanos / NANO),
        "u" => Some(nanos / 1_000_000),
        "m" => Some(nanos / 1_000),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { Some(nanos / factor) } else { nanos.checked_mul(factor) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_kubernetes_parses() {
        for (text, value) in [
            ("10Mi", Some(10 << 20)),
            ("1Ki", Some(1024)),
            ("1k", Some(1000)),
            ("500m", Some(1)),
            ("1.5Gi", Some(3 << 29)),
            ("1e3", Some(1000)),
            ("2E2", Some(200)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("-5", Some(-5)),
            ("0", Some(0)),
            (".5", Some(1)),
            ("100n", Some(1)),
            ("", None),
            ("Mi", None),
            ("10MB", None),
            ("1.2.3", None),
            ("ten", None),
        ] {
            assert_eq!(Quantity::parse(text).map(Quantity::value), value, "{text}");
        }
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
}
