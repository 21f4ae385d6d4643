"""`python -m tests.differential`: write the list of disagreements anew; look at its diff before you commit it."""

import collections
import json
import sys

from tests.differential import comparison


def main() -> int:
    """Compare, write, and say how much agrees."""
    found = comparison.compare()
    listed = comparison.disagreements(found)
    comparison.RECORDED.write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for oracle, models in listed.items():
        known = sum(each.oracle == oracle for each in found)
        kinds = collections.Counter(str(model["category"]) for model in models.values())
        print(f"{oracle}: knows {known} models, agrees on {known - len(models)}; {dict(kinds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
