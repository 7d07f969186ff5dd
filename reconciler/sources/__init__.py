"""Where tenants are observed: a cluster, or a file."""
