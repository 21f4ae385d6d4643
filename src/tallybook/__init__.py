"""Tallybook: usage metering and AI token pricing. Start reading at `flows/usage.py`."""
