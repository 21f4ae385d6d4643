"""No native id is charged below its provider's price without its being written down."""

from tests.differential import native_ids


def test_only_regional_inference_profiles_resolve_to_a_lower_price_and_each_is_listed() -> None:
    found = native_ids.underpriced()
    assert found == native_ids.recorded(), "run `python -m tests.differential` and look at the difference"
    assert [name for name in found if not native_ids.REGIONAL.fullmatch(name)] == []
