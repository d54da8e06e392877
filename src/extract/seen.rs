//! What a run saw and did not store, as the lake keeps it.

use crate::lake::manifest::Manifest;
use crate::lake::quarantine::SeenField;
use crate::model::Stream;
use crate::policy::{Decoder, Quarantined, Reason};

/// Writes what a run saw by a time as the lake keeps it.
pub(super) fn fields(quarantine: &[Quarantined], now_ms: i64, run: &str) -> Vec<SeenField> {
    let field = |field: &Quarantined| SeenField {
        path: field.path.clone(),
        json_type: field.json_type.to_owned(),
        reason: field.reason.name().to_owned(),
        count: field.count,
        first_ms: now_ms,
        last_ms: now_ms,
        run: run.to_owned(),
    };
    quarantine.iter().map(field).collect()
}

/// Lists the paths in quarantine that are declared by now; values of another type than declared stay there.
pub(super) fn declared(manifest: &Manifest, stream: Stream, decoder: &Decoder) -> Vec<String> {
    let kept = manifest.quarantine.get(&stream).into_iter().flat_map(|kept| kept.fields.keys());
    let undeclared = kept.filter(|key| key.reason != Reason::Mismatch.name());
    let declared = undeclared.map(|key| &key.path).filter(|path| decoder.is_declared(path));
    let mut declared: Vec<String> = declared.cloned().collect();
    declared.dedup();
    declared
}
