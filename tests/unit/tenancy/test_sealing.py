"""A sealed response opens with the key that asked for it, and with nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from tallybook.tenancy import sealing

KEY = "ck_" + "a" * 16 + "_" + "b" * 43


@given(st.binary(max_size=300))
def test_what_was_sealed_opens_again(plain: bytes) -> None:
    assert sealing.unseal(sealing.seal(plain, KEY, "once"), KEY, "once") == plain


def test_another_key_or_another_request_opens_nothing() -> None:
    sealed = sealing.seal(b"the secret", KEY, "once")
    assert sealing.unseal(sealed, KEY[:-1] + "c", "once") is None
    assert sealing.unseal(sealed, KEY, "twice") is None
    assert sealing.unseal(b"", KEY, "once") is None


@given(st.integers(min_value=0, max_value=57), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    sealed = bytearray(sealing.seal(b"the secret", KEY, "once"))
    sealed[place] ^= change
    assert sealing.unseal(bytes(sealed), KEY, "once") is None


def test_the_secret_does_not_stand_in_what_is_stored_and_no_two_seals_are_alike() -> None:
    first, second = (sealing.seal(b"the secret", KEY, "once") for _ in range(2))
    assert b"secret" not in first
    assert first != second
