"""Values in, text out: what people and programs read."""
