//! Which process holds a lease, so that one beside it can tell when it has ended.
//!
//! A number of a process means something only where it was given, and only until it is given again. So a seat names the
//! place as well, and the moment: the boot of the machine, the namespaces of process numbers and of time (two containers of
//! one machine may count theirs apart), the user (others' processes may be hidden), the number, and when the process
//! started, in the kernel's ticks since the boot. Whoever is not in the same place knows nothing, and an unclear answer counts as alive:
//! at worst a lease expires by itself.
//!
//! It is read from Linux's `/proc`, see [proc(5)](https://man7.org/linux/man-pages/man5/proc.5.html). On other systems
//! there are no seats.

use std::fs;
use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

/// A process in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seat {
    /// Boot, namespaces and user: equal for processes that can tell of each other.
    place: String,
    /// The number of the process.
    pid: u32,
    /// When it started, in ticks since the boot.
    started_ticks: u64,
}

impl Seat {
    /// Returns the seat of this process, where the system tells it.
    pub(super) fn own() -> Option<Self> {
        let pid = std::process::id();
        let Standing::Runs { started_ticks } = look_up(pid) else { return None };
        Some(Self { place: place()?, pid, started_ticks })
    }

    /// Tells whether the process has ended for sure.
    pub(super) fn has_ended(&self) -> bool {
        if place().as_ref() != Some(&self.place) {
            return false;
        }
        match look_up(self.pid) {
            Standing::Gone => true,
            // The number may belong to a later process.
            Standing::Runs { started_ticks } => started_ticks != self.started_ticks,
            Standing::Unknown => false,
        }
    }
}

enum Standing {
    Runs { started_ticks: u64 },
    Gone,
    Unknown,
}

/// Looks a process up by its number.
fn look_up(pid: u32) -> Standing {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(line) => standing(&line),
        // Only beside an entry of one's own does a missing one say something: elsewhere there is no `/proc`.
        Err(error) if error.kind() == ErrorKind::NotFound && fs::exists("/proc/self/stat").unwrap_or(false) => {
            Standing::Gone
        }
        Err(_) => Standing::Unknown,
    }
}

/// Reads the line of a process: `PID (NAME) STATE …`, where the name may hold spaces and brackets; the start is field 22.
fn standing(line: &str) -> Standing {
    let Some((_, rest)) = line.rsplit_once(')') else { return Standing::Unknown };
    let mut fields = rest.split_whitespace();
    match (fields.next(), fields.nth(18).and_then(|ticks| ticks.parse().ok())) {
        // Ended, and not yet asked about by its parent.
        (Some("Z" | "X" | "x"), _) => Standing::Gone,
        (Some(_), Some(started_ticks)) => Standing::Runs { started_ticks },
        _ => Standing::Unknown,
    }
}

#[cfg(target_os = "linux")]
fn place() -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;

    // A `/proc` of other numbers, as containers may have mounted, tells nothing.
    if fs::read_link("/proc/self").ok()?.to_str()? != std::process::id().to_string() {
        return None;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let numbers = fs::read_link("/proc/self/ns/pid").ok()?;
    // Older kernels have one time for all.
    let times = fs::read_link("/proc/self/ns/time").unwrap_or_default();
    let user = fs::metadata("/proc/self").ok()?.uid();
    Some(format!("boot {} {} {} user {user}", boot.trim(), numbers.display(), times.display()))
}

#[cfg(not(target_os = "linux"))]
fn place() -> Option<String> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    impl Seat {
        /// The seat of a process that had this one's number before.
        pub(in crate::lake::lease) fn after_its_end(mut self) -> Self {
            self.started_ticks -= 1;
            self
        }
    }

    #[test]
    fn process_has_ended_only_when_it_is_dead_or_another_has_its_number() {
        let own = Seat::own().unwrap();
        assert!(!own.has_ended());
        assert!(own.clone().after_its_end().has_ended(), "another process has the number now");
        assert!(!Seat { place: "boot elsewhere".to_owned(), ..own.clone().after_its_end() }.has_ended());

        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let Standing::Runs { started_ticks } = look_up(child.id()) else { panic!("the child runs") };
        let seat = Seat { pid: child.id(), started_ticks, ..own };
        assert!(!seat.has_ended());
        child.kill().unwrap();
        // Dead from now on, as a zombie until its parent waits for it, and then without an entry.
        while !seat.has_ended() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(seat.has_ended());
    }

    #[test]
    fn line_of_a_process_is_read_behind_its_name_and_nonsense_counts_as_alive() {
        let fields = (4..=30).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        assert!(matches!(standing(&format!("7 (a) b) S {fields}")), Standing::Runs { started_ticks: 22 }));
        assert!(matches!(standing(&format!("7 (a) Z {fields}")), Standing::Gone));
        for line in ["", "7 (a", "7 (a) S", "7 (a) S 1 2 3"] {
            assert!(matches!(standing(line), Standing::Unknown), "{line}");
        }
    }
}
