//! Buckets: a number becomes the lower end of the range that it lies in.
//!
//! With `bounds`, ranges begin at each bound and the last one has no end; a number below the first bound is not stored (the
//! value is NULL), since its range has no lower end. With `width`, ranges begin at the multiples of the width, on both sides
//! of zero. The column keeps its type: an `int` takes whole bounds and widths only.

/// The ranges.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Bucket {
    /// Each is as wide as this.
    Width(f64),
    /// Each begins at one of these, in ascending order.
    Bounds(Vec<f64>),
}

/// Up to here every whole number is a float.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;
/// More is no range but a list of values.
const MAX_BOUNDS: usize = 256;

impl Bucket {
    /// Reads bounds; `None` when they are not ascending finite numbers.
    pub(super) fn of_bounds(bounds: &[String]) -> Option<Self> {
        let bounds: Vec<f64> = bounds.iter().map(|bound| number(bound)).collect::<Option<_>>()?;
        let is_ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        (is_ascending && (1..=MAX_BOUNDS).contains(&bounds.len())).then_some(Self::Bounds(bounds))
    }

    /// Reads a width; `None` when it is not a finite number above zero.
    pub(super) fn of_width(width: &str) -> Option<Self> {
        number(width).filter(|width| *width > 0.0).map(Self::Width)
    }

    /// Tells whether the ranges begin at whole numbers.
    pub(super) fn is_whole(&self) -> bool {
        let is_whole = |number: f64| number.fract() == 0.0 && number.abs() <= MAX_WHOLE;
        match self {
            Self::Width(width) => is_whole(*width),
            Self::Bounds(bounds) => bounds.iter().all(|bound| is_whole(*bound)),
        }
    }

    /// Returns the lower end of the range of a whole number, for ranges that begin at whole numbers.
    pub(super) fn int(&self, value: i64) -> Option<i64> {
        match self {
            // At the end of what 64 bits hold, the lower end may lie beyond.
            Self::Width(width) => value.div_euclid(*width as i64).checked_mul(*width as i64),
            Self::Bounds(bounds) => below(bounds, value as f64).map(|bound| bound as i64),
        }
    }

    /// Returns the lower end of the range of a number.
    pub(super) fn float(&self, value: f64) -> Option<f64> {
        match self {
            Self::Width(width) => {
                let count = (value / width).floor();
                if count.abs() >= MAX_WHOLE {
                    // Floats of this size are further apart than the ranges.
                    return Some(value);
                }
                // The division rounds: the multiple that it gives may be the next one.
                let lower = [count + 1.0, count, count - 1.0].map(|count| count * width);
                lower.into_iter().find(|lower| *lower <= value).map(|lower| lower + 0.0)
            }
            Self::Bounds(bounds) => below(bounds, value),
        }
    }
}

/// Finds the last bound that is not above a value.
fn below(bounds: &[f64], value: f64) -> Option<f64> {
    bounds.partition_point(|bound| *bound <= value).checked_sub(1).map(|index| bounds[index])
}

/// Reads a finite number; there is one zero.
fn number(text: &str) -> Option<f64> {
    text.replace('_', "").parse().ok().filter(|number: &f64| number.is_finite()).map(|number| number + 0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounds(bounds: &[&str]) -> Option<Bucket> {
        Bucket::of_bounds(&bounds.iter().map(|bound| (*bound).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn number_becomes_the_lower_end_of_its_range() {
        let steps = bounds(&["0", "10", "100"]).unwrap();
        for (value, lower) in [(-1, None), (0, Some(0)), (9, Some(0)), (10, Some(10)), (i64::MAX, Some(100))] {
            assert_eq!(steps.int(value), lower, "{value}");
        }
        let tens = Bucket::of_width("10").unwrap();
        for (value, lower) in [(-1, Some(-10)), (-10, Some(-10)), (9, Some(0)), (10, Some(10)), (i64::MIN, None)] {
            assert_eq!(tens.int(value), lower, "{value}");
        }
        let tenths = Bucket::of_width("0.1").unwrap();
        for (value, lower) in [(0.25, 0.2), (-0.05, -0.1), (-0.0, 0.0), (0.3, 0.2), (0.1 * 3.0, 0.1 * 3.0)] {
            assert_eq!(tenths.float(value).map(f64::to_bits), Some(f64::to_bits(lower)), "{value}");
        }
        assert_eq!(tenths.float(f64::MAX), Some(f64::MAX));
        assert_eq!(bounds(&["0.5"]).unwrap().float(0.4), None);
    }

    #[test]
    fn ranges_without_order_or_size_are_refused() {
        for wrong in [&[][..], &["1", "1"], &["2", "1"], &["nan"], &["inf"], &["x"]] {
            assert_eq!(bounds(wrong), None, "{wrong:?}");
        }
        for wrong in ["0", "-1", "nan", "inf", ""] {
            assert_eq!(Bucket::of_width(wrong), None, "{wrong}");
        }
        assert!(!Bucket::of_width("0.5").unwrap().is_whole() && Bucket::of_width("5.0").unwrap().is_whole());
        assert!(!bounds(&["1", "1e300"]).unwrap().is_whole());
    }

    proptest! {
        #[test]
        fn lower_end_is_below_and_its_own(value in any::<f64>(), whole in any::<i64>(), width in 1e-6f64..1e9) {
            prop_assume!(value.is_finite());
            let bucket = Bucket::Width(width);
            let lower = bucket.float(value).unwrap();
            prop_assert!(lower <= value && (value - lower <= width * 1.001 || value.abs() > 1e15));
            prop_assert_eq!(bucket.float(lower), Some(lower));
            let bucket = Bucket::Width(width.ceil());
            if let Some(lower) = bucket.int(whole) {
                prop_assert!(lower <= whole && whole - lower < width.ceil() as i64);
                prop_assert_eq!(bucket.int(lower), Some(lower));
            }
        }
    }
}
