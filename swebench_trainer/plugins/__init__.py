"""Plugins: found and loaded (manager), who offers what (registry), held to their contracts (guard)."""
