"""Bytes to typed usage events, or per-item errors. Pure: no I/O, no clock. Start at `events`."""
