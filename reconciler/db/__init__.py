"""The ledger in PostgreSQL: what is read of it, and what is written to it."""
