"""Files of a repository at a commit: read without a checkout, fetched at most once."""
