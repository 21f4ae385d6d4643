"""What Tallybook does a second on this machine, measured so that it can be believed. `README.md` says how to read it."""
