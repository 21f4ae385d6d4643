"""The fixtures `service` and `account` are those of `tests/support/running.py`."""
