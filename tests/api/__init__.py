"""The described API against the real one: what the description says is what is answered, for every organization its own."""
