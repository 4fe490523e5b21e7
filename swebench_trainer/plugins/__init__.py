"""Plugins: loading (manager), registered implementations (registry), contract checks (guard)."""
