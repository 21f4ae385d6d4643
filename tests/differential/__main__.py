"""`python -m tests.differential`: write the list of disagreements anew; look at its diff before you commit it."""

import collections
import json
import sys

from tests.differential import comparison, native_ids


def main() -> int:
    """Compare, write, and say how much agrees."""
    found = comparison.compare()
    listed = comparison.disagreements(found)
    comparison.RECORDED.write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for oracle, models in listed.items():
        known = sum(each.oracle == oracle for each in found)
        kinds = collections.Counter(str(model["category"]) for model in models.values())
        print(f"{oracle}: knows {known} models, agrees on {known - len(models)}; {dict(kinds)}")
    below = native_ids.underpriced()
    native_ids.RECORDED.write_text(json.dumps(below, indent=1) + "\n", encoding="utf-8")
    print(f"native ids below litellm's price: {len(below)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
