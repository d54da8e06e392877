//! Quarantine as the lake keeps it: which fields were seen and not stored, by name, type and count.
//!
//! ```text
//! run 1 ─▶ Seen ─┐
//! run 2 ─▶ Seen ─┼─▶ Quarantine of the stream: (path, type, reason) ─▶ count, first seen, last seen, last run
//! run 3 ─▶ Seen ─┘
//! ```
//!
//! Names only, never a value: they come from `policy`, which reports a name only where it looks like an attribute's.
//! Of each stream [`MAX_FIELDS`] are kept by name; further ones count under the path `*`.
//!
//! An entry goes when its field is declared, or when a run that saw every record of the stream did not see it. A run that
//! saw only what had changed says nothing about the rest, so it removes nothing: its counts add up. A run that saw every
//! record begins the counts anew.
//!
//! Beside them stand the names of the custom attributes that the source defines, and which of them it marks sensitive:
//! that is what a rule can be checked against without asking the source.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Fields of a stream that are kept by name.
pub const MAX_FIELDS: usize = 2_000;

/// Under this path fields count whose names are not kept.
const OTHERS: &str = "*";

/// What one stream holds in quarantine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quarantine {
    /// Fields that were seen and not stored.
    pub fields: BTreeMap<FieldKey, FieldCount>,
    /// Custom attributes that the source defines, and whether it marks them sensitive.
    pub attributes: BTreeMap<String, bool>,
}

/// Which field, and why nothing of it was stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldKey {
    /// Path, e.g. `attributes.custom.noteTxt`.
    pub path: String,
    /// JSON type of its values: `text`, `number`, `bool`, `array`, `object`.
    pub json_type: String,
    /// Why nothing was stored: `undeclared`, `mismatch`, `sensitive`.
    pub reason: String,
}

/// How often a field was seen, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldCount {
    /// How often.
    pub count: u64,
    /// When it was seen first, milliseconds since 1970.
    pub first_ms: i64,
    /// When it was seen last.
    pub last_ms: i64,
    /// Id of the run that saw it last.
    pub run: String,
}

/// What a run adds to a stream's quarantine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Whether every record of the stream was seen: what is not in `fields` is nowhere any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub whole: bool,
    /// Fields that were seen and not stored.
    pub fields: Vec<SeenField>,
    /// Paths in quarantine that are declared by now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declared: Vec<String>,
    /// Custom attributes that the source defines, and whether it marks them sensitive; absent where that is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BTreeMap<String, bool>>,
}

/// One field that was seen and not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenField {
    /// Path.
    pub path: String,
    /// JSON type of its values.
    #[serde(rename = "type")]
    pub json_type: String,
    /// Why nothing was stored.
    pub reason: String,
    /// How often it was seen.
    pub count: u64,
    /// When it was seen first, milliseconds since 1970.
    pub first_ms: i64,
    /// When it was seen last.
    pub last_ms: i64,
    /// Id of the run.
    pub run: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Quarantine {
    /// Adds what a run saw.
    pub(super) fn apply(&mut self, seen: &Seen) {
        let before = if seen.whole { std::mem::take(&mut self.fields) } else { BTreeMap::new() };
        self.fields.retain(|key, _| key.reason == "mismatch" || !seen.declared.contains(&key.path));
        let mut named = self.fields.keys().filter(|key| key.path != OTHERS).count();
        for field in &seen.fields {
            let mut key =
                FieldKey { path: field.path.clone(), json_type: field.json_type.clone(), reason: field.reason.clone() };
            if key.path != OTHERS && !self.fields.contains_key(&key) {
                if named < MAX_FIELDS {
                    named += 1;
                } else {
                    OTHERS.clone_into(&mut key.path);
                }
            }
            let first_ms = before.get(&key).map_or(field.first_ms, |before| before.first_ms.min(field.first_ms));
            let known = self.fields.entry(key).or_insert_with(|| FieldCount {
                count: 0,
                first_ms,
                last_ms: field.last_ms,
                run: field.run.clone(),
            });
            known.count = known.count.saturating_add(field.count);
            known.first_ms = known.first_ms.min(first_ms);
            if field.last_ms >= known.last_ms {
                known.last_ms = field.last_ms;
                known.run.clone_from(&field.run);
            }
        }
        if let Some(attributes) = &seen.attributes {
            self.attributes.clone_from(attributes);
        }
    }

    /// Describes it as what a single run saw that makes it out of nothing.
    pub(super) fn to_seen(&self) -> Seen {
        let field = |(key, count): (&FieldKey, &FieldCount)| SeenField {
            path: key.path.clone(),
            json_type: key.json_type.clone(),
            reason: key.reason.clone(),
            count: count.count,
            first_ms: count.first_ms,
            last_ms: count.last_ms,
            run: count.run.clone(),
        };
        Seen {
            whole: true,
            fields: self.fields.iter().map(field).collect(),
            declared: Vec::new(),
            attributes: (!self.attributes.is_empty()).then(|| self.attributes.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(path: &str, reason: &str, count: u64, at_ms: i64) -> SeenField {
        SeenField {
            path: path.to_owned(),
            json_type: "text".to_owned(),
            reason: reason.to_owned(),
            count,
            first_ms: at_ms,
            last_ms: at_ms,
            run: format!("run at {at_ms}"),
        }
    }

    fn seen(fields: Vec<SeenField>) -> Seen {
        Seen { fields, ..Seen::default() }
    }

    fn shown(quarantine: &Quarantine) -> Vec<String> {
        let line = |(key, count): (&FieldKey, &FieldCount)| {
            format!("{} {} {} {}..{} {}", key.path, key.reason, count.count, count.first_ms, count.last_ms, count.run)
        };
        quarantine.fields.iter().map(line).collect()
    }

    #[test]
    fn counts_of_runs_add_up_and_a_whole_run_begins_anew() {
        let mut kept = Quarantine::default();
        kept.apply(&seen(vec![field("a", "undeclared", 3, 1), field("b", "undeclared", 1, 1)]));
        kept.apply(&seen(vec![field("a", "undeclared", 2, 5), field("a", "mismatch", 1, 5)]));
        assert_eq!(
            shown(&kept),
            ["a mismatch 1 5..5 run at 5", "a undeclared 5 1..5 run at 5", "b undeclared 1 1..1 run at 1"]
        );
        kept.apply(&Seen { whole: true, ..seen(vec![field("a", "undeclared", 4, 9)]) });
        assert_eq!(shown(&kept), ["a undeclared 4 1..9 run at 9"]);
    }

    #[test]
    fn declared_fields_go_and_their_mismatches_stay() {
        let mut kept = Quarantine::default();
        kept.apply(&seen(vec![
            field("a", "sensitive", 3, 1),
            field("a", "mismatch", 1, 1),
            field("b", "undeclared", 1, 1),
        ]));
        kept.apply(&Seen { declared: vec!["a".to_owned()], ..Seen::default() });
        assert_eq!(shown(&kept), ["a mismatch 1 1..1 run at 1", "b undeclared 1 1..1 run at 1"]);
    }

    #[test]
    fn names_beyond_the_bound_count_under_a_star() {
        let mut kept = Quarantine::default();
        for part in 0..3 {
            let names = (0..1_000).map(|n| field(&format!("name{part}_{n:04}"), "undeclared", 1, part));
            kept.apply(&seen(names.collect()));
        }
        assert_eq!(kept.fields.len(), MAX_FIELDS + 1);
        assert_eq!(shown(&kept)[0], "* undeclared 1000 2..2 run at 2");
        let mut again = Quarantine::default();
        again.apply(&kept.to_seen());
        assert_eq!(again, kept);
    }

    #[test]
    fn attributes_stay_where_the_source_does_not_tell() {
        let mut kept = Quarantine::default();
        let told = BTreeMap::from([("ssnStr".to_owned(), true)]);
        kept.apply(&Seen { attributes: Some(told.clone()), ..Seen::default() });
        kept.apply(&seen(Vec::new()));
        assert_eq!(kept.attributes, told);
        kept.apply(&Seen { attributes: Some(BTreeMap::new()), ..Seen::default() });
        assert!(kept.attributes.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_it_is_described_as_makes_it_again(
            runs in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(("[ab*]", "undeclared|mismatch", 1u64..9, 0i64..9), 0..6)), 0..6),
        ) {
            let mut kept = Quarantine::default();
            for (whole, fields) in runs {
                let fields = fields.iter().map(|(path, reason, count, at)| field(path, reason, *count, *at)).collect();
                kept.apply(&Seen { whole, ..seen(fields) });
                let mut again = Quarantine::default();
                again.apply(&kept.to_seen());
                prop_assert_eq!(&again, &kept);
            }
        }
    }
}
