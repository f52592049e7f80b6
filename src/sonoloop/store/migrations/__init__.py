"""The store's schema, one file a step; shipped in the package and run when a store is opened.

A step never changes once released. On SQLite a step that rebuilds `revisions` or `predictions` (Alembic's
batch mode) drops their append-only triggers with the old table and must create them again.
"""
