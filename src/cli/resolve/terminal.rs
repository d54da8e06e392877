//! The terminal that a thread is written to: its width, its colours, the time zone of who reads it.

use std::io::IsTerminal as _;
use std::path::Path;

use jiff::tz::TimeZone;

use crate::resolve::Style;

/// Columns where standard output is no terminal.
const COLUMNS: usize = 80;

/// Returns how a thread is set on this standard output.
pub(super) fn style(utc: bool) -> Style {
    let is_terminal = std::io::stdout().is_terminal();
    let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    let said = |name: &str| std::env::var(name).unwrap_or_default();
    Style {
        width: width.filter(|width| *width > 0).unwrap_or(COLUMNS),
        // See https://no-color.org: any value but an empty one.
        colors: is_terminal && said("NO_COLOR").is_empty() && said("TERM") != "dumb",
        zone: if utc { TimeZone::UTC } else { zone(&said("TZ"), std::fs::read_link("/etc/localtime").ok().as_deref()) },
    }
}

/// Returns the zone that `TZ` names, or else the system; UTC where neither names one that is known.
fn zone(variable: &str, localtime: Option<&Path>) -> TimeZone {
    let named = |path: &str| {
        let name = path.rsplit_once("zoneinfo/").map_or(path, |(_, name)| name);
        TimeZone::get(name).ok()
    };
    match variable.trim_start_matches(':') {
        "" => localtime.and_then(Path::to_str).and_then(named).unwrap_or(TimeZone::UTC),
        name => named(name).unwrap_or(TimeZone::UTC),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_comes_from_the_variable_or_the_system() {
        let system = Path::new("/usr/share/zoneinfo/America/New_York");
        for (variable, localtime, name) in [
            ("Europe/Berlin", Some(system), "Europe/Berlin"),
            (":/usr/share/zoneinfo/Asia/Tokyo", None, "Asia/Tokyo"),
            ("", Some(system), "America/New_York"),
            ("", Some(Path::new("../elsewhere")), "UTC"),
            ("No/Where", Some(system), "UTC"),
            ("", None, "UTC"),
        ] {
            assert_eq!(zone(variable, localtime).iana_name(), Some(name), "{variable:?} {localtime:?}");
        }
    }
}
