"""A process to be killed: tracks events through a spool for as long as it lives, and says each id when `track` has returned."""

import itertools
import sys
import time

from tallybook.client import MeterSettings, Tallybook

_PAUSE_S = 0.0005


def main() -> None:
    url, key, spool, name = sys.argv[1:]
    tallybook = Tallybook(key, url=url, meter=MeterSettings(linger_s=0.005, spool=spool), on_error=lambda _problem: None)
    for number in itertools.count():
        event_id = tallybook.meter.track(
            "user_1", "ai_chat", event_id=f"{name}-{number}", model="gpt-4o", input_tokens=1000, output_tokens=10
        )
        sys.stdout.write(event_id + "\n")
        sys.stdout.flush()
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main()
