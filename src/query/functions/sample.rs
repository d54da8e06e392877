//! `sample_key(seed, ticket_id)`: a stable draw for sampling.
//!
//! The key is the first 53 bits (big-endian) of SHA-256 over
//!
//! ```text
//! "counterfoil sample 1" 0x00 seed 0x00 ticket_id
//! ```
//!
//! divided by 2^53; the seed is UTF-8 (an integer as decimal digits), the id is UTF-8. Ids hold no zero byte, so the last
//! zero byte always parts seed and id. A ticket's key depends on nothing but seed and id: not on other tickets, the order
//! of rows, the platform or the version. `ORDER BY sample_key(…)` with a row number is therefore a sample in which a late
//! ticket can only take a place of its own, and `sample_key(…) < 0.05` is a sample of 5 % to which tickets are only added.
//!
//! The format is frozen: another way to draw gets another number in its first field and another function name.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayAccessor, ArrayIter, AsArray, Float64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result as EngineResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use ring::digest::{Context, SHA256};

const DOMAIN: &[u8] = b"counterfoil sample 1\0";

/// Draws the key of one ticket: at least 0, less than 1.
///
/// ```
/// use counterfoil::query::functions::sample::sample_key;
/// let key = sample_key("2026-W09", "58228e05d4e96711004eccb7");
/// assert!((0.0..1.0).contains(&key));
/// ```
#[must_use]
pub fn sample_key(seed: &str, ticket_id: &str) -> f64 {
    draw(&seeded(seed), ticket_id)
}

fn seeded(seed: &str) -> Context {
    let mut context = Context::new(&SHA256);
    context.update(DOMAIN);
    context.update(seed.as_bytes());
    context.update(&[0]);
    context
}

fn draw(seeded: &Context, ticket_id: &str) -> f64 {
    let mut context = seeded.clone();
    context.update(ticket_id.as_bytes());
    let digest = context.finish();
    let first = digest.as_ref().iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    // 53 bits are what a double holds exactly, so the division loses nothing.
    (first >> 11) as f64 / (1_u64 << 53) as f64
}

/// The SQL function.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct SampleKey {
    signature: Signature,
}

impl Default for SampleKey {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl fmt::Debug for SampleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SampleKey")
    }
}

impl ScalarUDFImpl for SampleKey {
    fn name(&self) -> &'static str {
        "sample_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> EngineResult<DataType> {
        Ok(DataType::Float64)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> EngineResult<Vec<DataType>> {
        let [seed, id] = arg_types else {
            return plan_err!("sample_key takes a seed and a ticket id, not {} arguments", arg_types.len());
        };
        if !(seed.is_integer() || is_text(seed)) {
            return plan_err!("sample_key takes an integer or a text as seed, not {seed}");
        }
        if !is_text(id) {
            return plan_err!("sample_key takes a text as ticket id, not {id}");
        }
        // Ids of the lake are read as they lie, whatever their encoding: a cast would copy every one of them.
        let id = match id {
            DataType::LargeUtf8 | DataType::Utf8View => id.clone(),
            _ => DataType::Utf8,
        };
        Ok(vec![DataType::Utf8, id])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let [seed, id] = args.args.as_slice() else {
            return plan_err!("sample_key takes a seed and a ticket id");
        };
        let ids = id.to_array(args.number_rows)?;
        let keys = match ids.data_type() {
            DataType::Utf8 => keys(seed, ids.as_string::<i32>(), ids.nulls())?,
            DataType::LargeUtf8 => keys(seed, ids.as_string::<i64>(), ids.nulls())?,
            DataType::Utf8View => keys(seed, ids.as_string_view(), ids.nulls())?,
            other => return plan_err!("sample_key takes a text as ticket id, not {other}"),
        };
        if matches!(id, ColumnarValue::Scalar(_)) && matches!(seed, ColumnarValue::Scalar(_)) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&keys, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(keys)))
    }
}

/// Draws the keys of a batch.
fn keys<'a>(
    seed: &ColumnarValue,
    ids: impl ArrayAccessor<Item = &'a str>,
    nulls: Option<&NullBuffer>,
) -> EngineResult<Float64Array> {
    Ok(match seed {
        ColumnarValue::Scalar(seed) => match seed.try_as_str().flatten() {
            None => Float64Array::new_null(ids.len()),
            Some(seed) => {
                let seeded = seeded(seed);
                // A NULL has some text, too: drawing it costs less than asking each row whether it is one.
                let drawn: Vec<f64> = (0..ids.len()).map(|row| draw(&seeded, ids.value(row))).collect();
                Float64Array::try_new(drawn.into(), nulls.cloned())?
            }
        },
        ColumnarValue::Array(seeds) => {
            let seeds = seeds.as_string::<i32>();
            seeds.iter().zip(ArrayIter::new(ids)).map(|(seed, id)| Some(sample_key(seed?, id?))).collect()
        }
    })
}

/// Tells whether a type is text in one of its encodings, or the type of an untyped NULL.
pub(super) fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by Python: `int.from_bytes(sha256(b"counterfoil sample 1\0" + seed + b"\0" + id).digest()[:8], "big") >> 11`.
    const VECTORS: [(&str, &str, u64); 5] = [
        ("", "", 1_420_249_549_805_039),
        ("1", "58228e05d4e96711004eccb7", 2_854_656_724_398_205),
        ("42", "58228e05d4e96711004eccb7", 8_367_344_631_906_666),
        ("2026-W09", "5d3e2a9ec1f4b20012345678", 4_144_981_640_749_744),
        ("größe", "ticket", 8_870_338_185_199_502),
    ];

    #[test]
    fn keys_equal_the_written_down_vectors() {
        for (seed, id, bits) in VECTORS {
            let expected = bits as f64 / (1_u64 << 53) as f64;
            assert_eq!(sample_key(seed, id).to_bits(), expected.to_bits(), "{seed} {id}");
        }
    }

    #[test]
    fn keys_are_uniform_by_chi_square() {
        // 64 cells, 63 degrees of freedom: 112.3 is passed by chance once in ten thousand seeds; the seeds are fixed.
        for seed in ["1", "2", "qa"] {
            let mut cells = [0_u32; 64];
            let draws = 64_000;
            for ticket in 0..draws {
                let key = sample_key(seed, &format!("{ticket:024x}"));
                cells[(key * 64.0) as usize] += 1;
            }
            let expected = f64::from(draws) / 64.0;
            let chi_square: f64 = cells.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
            assert!(chi_square < 112.3, "seed {seed}: {chi_square}");
            assert!(chi_square > 25.0, "seed {seed}: too even, {chi_square}");
        }
    }

    proptest! {
        #[test]
        fn keys_lie_in_the_unit_interval_and_depend_on_the_seed(seed in "[^\0]{0,12}", id in "[0-9a-f]{24}") {
            let key = sample_key(&seed, &id);
            prop_assert!((0.0..1.0).contains(&key));
            prop_assert_ne!(key.to_bits(), sample_key(&format!("{seed}x"), &id).to_bits());
        }
    }
}
