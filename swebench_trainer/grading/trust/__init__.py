"""Trust flags: why a pass is not believed, by what the patch, the log and the sandbox tell."""
