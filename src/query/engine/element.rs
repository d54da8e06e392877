//! `list[n]` at a constant place, counted from 1, as one gather.

use arrow::array::{Array, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

/// Takes the element at a constant place of each list; NULL where a list is NULL or shorter.
pub(super) fn first_gathered(args: &ScalarFunctionArgs) -> Option<Result<ColumnarValue>> {
    let [ColumnarValue::Array(lists), ColumnarValue::Scalar(ScalarValue::Int64(Some(place)))] = args.args.as_slice()
    else {
        return None;
    };
    let lists = lists.as_list_opt::<i32>()?;
    if !matches!(lists.value_type(), DataType::Utf8 | DataType::Utf8View) || *place < 1 {
        return None;
    }
    let before = *place - 1;
    let places = lists.offsets().windows(2).enumerate().map(|(row, ends)| {
        let (start, end) = (i64::from(ends[0]), i64::from(ends[1]));
        (before < end - start && lists.is_valid(row)).then(|| (start + before) as u32)
    });
    let places: UInt32Array = places.collect();
    Some(take(lists.values(), &places, None).map(ColumnarValue::Array).map_err(Into::into))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
    use arrow::datatypes::Field;
    use datafusion::common::config::ConfigOptions;
    use datafusion::functions_nested::extract::array_element_udf;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_place_equals_the_engines_own(
            rows in proptest::collection::vec(
                proptest::option::of(proptest::collection::vec(proptest::option::of("[a-z]{0,20}"), 0..4)), 1..40),
            skipped in 0..5_usize,
            place in -2..6_i64,
        ) {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for row in &rows {
                lists.append_option(row.clone());
            }
            let lists: ArrayRef = Arc::new(lists.finish());
            let lists = lists.slice(skipped.min(rows.len() - 1), rows.len() - skipped.min(rows.len() - 1));
            let call = || ScalarFunctionArgs {
                args: vec![
                    ColumnarValue::Array(Arc::clone(&lists)),
                    ColumnarValue::Scalar(ScalarValue::Int64(Some(place))),
                ],
                arg_fields: vec![
                    Arc::new(Field::new("l", lists.data_type().clone(), true)),
                    Arc::new(Field::new("p", DataType::Int64, true)),
                ],
                number_rows: lists.len(),
                return_field: Arc::new(Field::new("x", DataType::Utf8, true)),
                config_options: Arc::new(ConfigOptions::default()),
            };
            let fast = first_gathered(&call()).transpose().unwrap();
            prop_assert_eq!(fast.is_some(), place >= 1);
            if let Some(fast) = fast {
                let slow = array_element_udf().invoke_with_args(call()).unwrap().into_array(lists.len()).unwrap();
                prop_assert_eq!(&fast.into_array(lists.len()).unwrap(), &slow);
            }
        }
    }
}
