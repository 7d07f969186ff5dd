"""Where tenants are listed: a cluster, or a file."""
