"""The `namespace` grader: its sandbox, root filesystems and control groups."""
