"""Checks of this machine: programs, Docker, namespaces, and trial gradings."""
