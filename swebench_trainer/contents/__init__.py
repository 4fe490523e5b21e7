"""What a repository holds at a commit: read, never checked out, fetched at most once."""
