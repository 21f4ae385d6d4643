"""Marks for tests that use SDKs: what those warn of is theirs, and what they leave open is found before another test is blamed."""

import pytest

_KINDS = ("DeprecationWarning", "UserWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
SDKS_ARE_QUIET = [pytest.mark.usefixtures("swept"), *(pytest.mark.filterwarnings(f"ignore::{kind}") for kind in _KINDS)]
