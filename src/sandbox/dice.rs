//! Seeded chance: the same seed, salt and index give the same values, whatever was asked before.
//!
//! [`Dice`] is a SplitMix64 sequence that starts at a point of its own for each record, so that records are computed
//! one by one. [`Shuffle`] is a permutation that can be walked in both directions without a table.

/// Scrambles 64 bits; a bijection (the finalizer of SplitMix64).
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Scrambles a seed with the name of a purpose and an index.
pub(super) const fn hash(seed: u64, salt: u64, index: u64) -> u64 {
    mix(mix(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(mix(index.wrapping_add(0x5851_f42d))))
}

/// A sequence of values that belongs to one record.
#[derive(Debug, Clone)]
pub(super) struct Dice {
    state: u64,
}

impl Dice {
    /// Starts the sequence of record `index` for the purpose `salt`.
    pub(super) const fn new(seed: u64, salt: u64, index: u64) -> Self {
        Self { state: hash(seed, salt, index) }
    }

    /// Returns the next 64 bits.
    pub(super) const fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Returns a value below `end`, or 0 when `end` is 0.
    pub(super) const fn below(&mut self, end: u64) -> u64 {
        (((self.roll() >> 32) as u128 * end as u128) >> 32) as u64
    }

    /// Returns a value from `first` to `last`, both possible.
    pub(super) const fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// Tells yes in `percent` of 100 cases.
    pub(super) const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Picks one of a list that is not empty.
    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// A permutation of `0..size`: `place -> (place * step + shift) mod size`, `step` coprime to `size`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shuffle {
    size: u64,
    step: u64,
    back: u64,
    shift: u64,
}

impl Shuffle {
    /// Makes the permutation that belongs to `key`.
    pub(super) fn new(size: u64, key: u64) -> Self {
        if size < 2 {
            return Self { size: 1, step: 0, back: 0, shift: 0 };
        }
        let mut step = 1 + mix(key) % (size - 1);
        while gcd(step, size) != 1 {
            step = 1 + step % (size - 1);
        }
        Self { size, step, back: inverse(step, size), shift: mix(key ^ 0xa5a5) % size }
    }

    /// Returns where `place` goes.
    pub(super) fn forward(&self, place: u64) -> u64 {
        ((u128::from(place) * u128::from(self.step) + u128::from(self.shift)) % u128::from(self.size)) as u64
    }

    /// Returns what went to `place`.
    pub(super) fn backward(&self, place: u64) -> u64 {
        let moved = (place + self.size - self.shift) % self.size;
        (u128::from(moved) * u128::from(self.back) % u128::from(self.size)) as u64
    }
}

const fn gcd(mut left: u64, mut right: u64) -> u64 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

/// Inverts `step` modulo `size` by the extended Euclidean algorithm.
const fn inverse(step: u64, size: u64) -> u64 {
    let (mut old, mut new) = (size as i128, step as i128);
    let (mut old_factor, mut factor) = (0_i128, 1_i128);
    while new != 0 {
        let quotient = old / new;
        (old, new) = (new, old - quotient * new);
        (old_factor, factor) = (factor, old_factor - quotient * factor);
    }
    old_factor.rem_euclid(size as i128) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shuffle_walks_back_what_it_walked(size in 1_u64..20_000_000, key: u64, part in 0.0_f64..1.0) {
            let place = (part * size as f64) as u64;
            let shuffle = Shuffle::new(size, key);
            let there = shuffle.forward(place);
            prop_assert!(there < size);
            prop_assert_eq!(shuffle.backward(there), place);
        }
    }

    #[test]
    fn dice_stay_below_the_end_and_reach_every_value() {
        let mut seen = [false; 6];
        let mut dice = Dice::new(1, 2, 3);
        for _ in 0..200 {
            seen[dice.below(6) as usize] = true;
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!(Dice::new(1, 2, 3).roll(), Dice::new(1, 2, 3).roll());
        assert_ne!(Dice::new(1, 2, 3).roll(), Dice::new(1, 2, 4).roll());
    }
}
