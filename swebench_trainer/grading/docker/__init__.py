"""The `docker` grader: its containers, images and daemons."""
