//! No core dumps: the memory of this process holds keys, and what people wrote while details pass through it.
//!
//! On Linux the process is marked as one that is never dumped, which also keeps other processes of the same user from
//! reading its memory; elsewhere on Unix the limit for dumps is set to nothing. What the system swaps out is beyond this:
//! encrypt the swap space, or have none.

/// Turns them off for the whole process; where the system refuses, a warning says so and work goes on.
pub(super) fn forbid() {
    #[cfg(unix)]
    if let Err(source) = rlimit::setrlimit(rlimit::Resource::CORE, 0, 0) {
        tracing::warn!(%source, "core dumps could not be limited; set `ulimit -c 0` where this runs");
    }
    // A pipe that takes dumps is served whatever the limit is.
    #[cfg(target_os = "linux")]
    if let Err(source) = capctl::prctl::set_dumpable(false) {
        tracing::warn!(%source, "core dumps could not be turned off for this process");
    }
}
