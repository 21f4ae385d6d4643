"""Properties of the whole till: random histories on the real script in a real Redis, beside a model that is too simple to be wrong."""
