//! Days since the epoch and dates of the proleptic Gregorian calendar, in both directions.
//!
//! Years are counted from March, so that the leap day is the last day of a year; 400 years are 146,097 days.

const DAYS_OF_400_YEARS: i64 = 146_097;
const EPOCH_FROM_YEAR_0_MARCH_1: i64 = 719_468;

/// Days from 1970-01-01 to the date. The date must exist.
pub(super) const fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_OF_400_YEARS + day_of_era - EPOCH_FROM_YEAR_0_MARCH_1
}

/// Year, month and day so many days after 1970-01-01.
pub(super) const fn date_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_FROM_YEAR_0_MARCH_1;
    let era = days.div_euclid(DAYS_OF_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_OF_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// How many days that month has.
pub(super) const fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 21), 20_778),
            ((1, 1, 1), -719_162),
        ] {
            assert_eq!(days_from_date(date.0, date.1, date.2), days);
            assert_eq!(date_from_days(days), date);
        }
    }

    #[test]
    fn both_directions_agree_over_eight_centuries() {
        for days in -150_000..150_000 {
            let (year, month, day) = date_from_days(days);
            assert!((1..=12).contains(&month) && day >= 1 && day <= days_of_month(year, month));
            assert_eq!(days_from_date(year, month, day), days);
        }
    }
}
