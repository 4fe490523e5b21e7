"""The stages of a run, a file each; they meet only through files of the run directory."""
