//! Bounded exponential backoff with jitter: pure arithmetic, no clock and no waiting.
//!
//! The random numbers come from a seeded generator, so a simulated run repeats exactly.

use std::time::Duration;

/// How often a failed attempt is repeated, and after how long.
///
/// The n-th delay lies between half of `first × 2ⁿ` and the whole of it, and never above `longest`: callers that failed
/// together come back apart, and none comes back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay's upper bound.
    pub first: Duration,
    /// The upper bound of every delay.
    pub longest: Duration,
    /// Attempts in all, the first one included.
    pub attempts: u32,
}

impl Backoff {
    /// Makes a policy of `attempts` attempts, from half a second to half a minute apart.
    #[must_use]
    pub const fn new(attempts: u32) -> Self {
        Self { first: Duration::from_millis(500), longest: Duration::from_secs(30), attempts }
    }

    /// Returns how long to wait after `failed` failed attempts (from 1), or nothing when no attempt is left.
    #[must_use]
    pub fn delay(&self, failed: u32, random: &mut SplitMix64) -> Option<Duration> {
        (failed < self.attempts).then(|| self.bounded_delay(failed, random))
    }

    /// Returns the delay after `failed` failed attempts without asking whether an attempt is left.
    #[must_use]
    pub fn bounded_delay(&self, failed: u32, random: &mut SplitMix64) -> Duration {
        let doublings = failed.saturating_sub(1).min(30);
        let bound = self.first.saturating_mul(1 << doublings).min(self.longest);
        bound / 2 + random.below(bound / 2)
    }
}

/// The `SplitMix64` generator: 64 bits of state, equidistributed, for jitter and never for secrets.
///
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Starts the sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// Returns a duration from zero to below `bound`, to the millisecond.
    pub fn below(&mut self, bound: Duration) -> Duration {
        let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(self.next_u64() % millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generator_yields_the_published_sequence() {
        let mut random = SplitMix64::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn delays_grow_stay_bounded_and_end_with_the_attempts() {
        let backoff = Backoff::new(20);
        for seed in 0..200 {
            let mut random = SplitMix64::new(seed);
            for failed in 1..20 {
                let delay = backoff.delay(failed, &mut random).unwrap();
                let bound = (backoff.first * 2_u32.pow(failed - 1)).min(backoff.longest);
                assert!(delay >= bound / 2 && delay < bound, "attempt {failed}: {delay:?} of {bound:?}");
            }
            assert_eq!(backoff.delay(20, &mut random), None);
        }
    }
}
