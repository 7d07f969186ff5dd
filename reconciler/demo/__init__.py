"""The demo: a bundled sample on an embedded PostgreSQL."""
