//! Durations for people, as `k8s.io/apimachinery/pkg/util/duration` prints them.

use jiff::Timestamp;
use serde_json::Value;

/// `HumanDuration`: two or three significant figures, e.g. `45s`, `3m12s`, `5d2h`, `2y30d`.
///
/// Up to two seconds into the future count as now, because clocks differ; more is `<invalid>`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => two(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

/// How long ago an RFC 3339 time was; `<unknown>` where there is none.
pub(super) fn since(time: Option<&Value>, now: Timestamp) -> String {
    match time.and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(then) => human_duration(seconds_between(then, now)),
        None => "<unknown>".into(),
    }
}

/// Whole seconds from `start` to `end`, cut towards zero as Go's `int(d.Seconds())`.
pub(super) fn seconds_between(start: Timestamp, end: Timestamp) -> i64 {
    i64::try_from((end.as_nanosecond() - start.as_nanosecond()) / 1_000_000_000).unwrap_or(i64::MAX)
}

fn two(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_upstreams() {
        const M: i64 = 60;
        const H: i64 = 3600;
        const D: i64 = 24 * H;
        const Y: i64 = 365 * D;
        let rows = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (1, "1s"),
            (70, "70s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (10 * M - 1, "9m59s"),
            (10 * M, "10m"),
            (70 * M, "70m"),
            (3 * H - 1, "179m"),
            (3 * H, "3h"),
            (3 * H + 4 * M + 5, "3h4m"),
            (8 * H - 1, "7h59m"),
            (8 * H, "8h"),
            (47 * H, "47h"),
            (49 * H, "2d1h"),
            (8 * D - 1, "7d23h"),
            (8 * D, "8d"),
            (Y, "365d"),
            (2 * Y - 1, "729d"),
            (2 * Y, "2y"),
            (2 * Y + D, "2y1d"),
            (8 * Y, "8y"),
            (19 * Y, "19y"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }
}
