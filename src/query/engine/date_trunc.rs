//! `date_trunc` of instants in UTC by whole numbers.
//!
//! A day is 86,400,000 ms, 1970-01-01 was a Thursday, and the first day of a month follows from the count of days by the
//! proleptic Gregorian calendar's period of 400 years (146,097 days).

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

const DAY_MS: i64 = 86_400_000;

/// Truncates a column of milliseconds in UTC (or without a zone) to a day or a coarser unit.
pub(super) fn truncated(args: &ScalarFunctionArgs) -> Option<Result<ColumnarValue>> {
    let [ColumnarValue::Scalar(unit), ColumnarValue::Array(times)] = args.args.as_slice() else { return None };
    let DataType::Timestamp(TimeUnit::Millisecond, zone) = times.data_type() else { return None };
    if zone.as_deref().is_some_and(|zone| !matches!(zone, "UTC" | "+00:00" | "Z")) {
        return None;
    }
    let unit = unit.try_as_str().flatten().map(str::to_ascii_lowercase);
    let first_day: fn(i64) -> i64 = match unit.as_deref() {
        Some("day") => |day| day,
        Some("week") => |day| day - (day + 3).rem_euclid(7),
        Some("month") => |day| first_of_months(day, 1),
        Some("quarter") => |day| first_of_months(day, 3),
        Some("year") => |day| first_of_months(day, 12),
        _ => return None,
    };
    let times = times.as_primitive::<TimestampMillisecondType>();
    // Instants whose day has no number of milliseconds are left to the engine, which says so.
    let is_far = |ms: i64| ms < i64::MIN + 400 * DAY_MS;
    if times.values().iter().copied().any(is_far) {
        return None;
    }
    let truncated = times.unary::<_, TimestampMillisecondType>(|ms| first_day(ms.div_euclid(DAY_MS)) * DAY_MS);
    Some(Ok(ColumnarValue::Array(Arc::new(truncated.with_timezone_opt(zone.clone())))))
}

/// Returns the day on which the span of `months` months begins that a day belongs to; days since 1970-01-01.
fn first_of_months(day: i64, months: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one, and eras in year 0.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(from_march >= 10);
    first_day_of(year, month - month % months)
}

/// Returns the first day of a month, counted from 0.
fn first_day_of(year: i64, month: i64) -> i64 {
    let (year, from_march) = if month >= 2 { (year, month - 2) } else { (year - 1, month + 10) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * from_march + 2) / 5;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, TimestampMillisecondArray};
    use arrow::datatypes::Field;
    use datafusion::common::ScalarValue;
    use datafusion::common::config::ConfigOptions;
    use datafusion::functions::datetime::date_trunc;
    use proptest::prelude::*;

    use super::*;

    fn call(unit: &str, times: &ArrayRef) -> ScalarFunctionArgs {
        let field = |data_type: &DataType| Arc::new(Field::new("x", data_type.clone(), true));
        ScalarFunctionArgs {
            args: vec![
                ColumnarValue::Scalar(ScalarValue::Utf8(Some(unit.to_owned()))),
                ColumnarValue::Array(Arc::clone(times)),
            ],
            arg_fields: vec![field(&DataType::Utf8), field(times.data_type())],
            number_rows: times.len(),
            return_field: field(times.data_type()),
            config_options: Arc::new(ConfigOptions::default()),
        }
    }

    proptest! {
        // The engine's own reaches as far as nanoseconds do, 1677 to 2262.
        #[test]
        fn every_unit_equals_the_engines_own(
            times in proptest::collection::vec(proptest::option::of(-9_200_000_000_000_i64..9_200_000_000_000), 1..60),
            zone in proptest::sample::select(vec![None, Some("UTC"), Some("+00:00")]),
        ) {
            let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(times).with_timezone_opt(zone));
            for unit in ["day", "week", "month", "quarter", "year", "Week"] {
                let fast = truncated(&call(unit, &times)).expect(unit).unwrap().into_array(times.len()).unwrap();
                let slow = date_trunc().invoke_with_args(call(unit, &times)).unwrap().into_array(times.len()).unwrap();
                prop_assert_eq!(&fast, &slow, "{}", unit);
            }
        }
    }

    #[test]
    fn other_zones_and_units_are_the_engines() {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0]).with_timezone("Europe/Berlin"));
        assert!(truncated(&call("day", &times)).is_none());
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0]).with_timezone("UTC"));
        assert!(truncated(&call("hour", &times)).is_none());
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![i64::MIN]));
        assert!(truncated(&call("year", &times)).is_none());
    }
}
