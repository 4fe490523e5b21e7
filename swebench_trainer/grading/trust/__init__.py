"""Trust flags: signs in the patch, the log and the sandbox that a pass is not genuine."""
