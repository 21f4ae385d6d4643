"""Which topics are told of."""

import re
from pathlib import Path

import tallybook
from tallybook.entrypoints.http import openapi
from tallybook.entrypoints.http.resources import webhooks
from tallybook.webhooks import topics

_TOPIC = re.compile(r'"((?:subscription|trial|customer|invoice)\.[a-z_]+)"')


def test_what_is_announced_can_be_subscribed_to() -> None:
    assert topics.KNOWN.issuperset(topics.ANNOUNCED)


def test_every_topic_that_the_code_announces_is_listed() -> None:
    folder = Path(tallybook.__file__).parent
    told = {
        topic
        for path in folder.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "tenancy.announce(" in line
        for topic in _TOPIC.findall(line)
    }
    families = ("subscription", "trial", "customer", "invoice")
    assert told == {topic for topic in topics.ANNOUNCED if topic.startswith(families)}


def test_the_description_says_which_topics_are_announced() -> None:
    description = str(openapi.document(webhooks.OPERATIONS, "/api/v1"))
    assert all(topic in description for topic in topics.ANNOUNCED)
