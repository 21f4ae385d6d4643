"""Settings from the environment: every rule names the variable, the value and what is allowed."""

import re

import pytest

from tallybook import settings
from tallybook.settings import Settings, SettingsError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert settings.from_environment({}) == Settings()


def test_an_empty_variable_is_as_good_as_none_but_turns_the_catalog_sync_off() -> None:
    assert settings.from_environment({"TALLYBOOK_HOST": "", "TALLYBOOK_CATALOG_URL": ""}) == Settings(catalog_url="")


def test_each_kind_of_field_is_read() -> None:
    found = settings.from_environment(
        {"TALLYBOOK_PORT": "9000", "TALLYBOOK_REUSE_PORT": "yes", "TALLYBOOK_REDIS_URL": " unix:///run/redis.sock ", "PORT": "1"}
    )
    assert (found.port, found.reuse_port, found.redis_url) == (9000, True, "unix:///run/redis.sock")


@pytest.mark.parametrize(
    "given",
    [
        Settings(),
        Settings(catalog_url=""),
        Settings(port=0, reuse_port=True, catalog_url="file:///c", log_level="error", workers=3),
    ],
)
def test_a_child_process_reads_the_settings_of_its_parent(given: Settings) -> None:
    assert settings.from_environment(settings.to_environment(given)) == given


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TALLYBOOK_PORT", "65536", "TALLYBOOK_PORT is '65536'; it is a whole number from 0 to 65535"),
        ("TALLYBOOK_PORT", "-1", "TALLYBOOK_PORT is '-1'; it is a whole number"),
        ("TALLYBOOK_PORT", "٣", "TALLYBOOK_PORT is '٣'; it is a whole number"),
        ("TALLYBOOK_PORT", "9" * 5000, "it is a whole number from 0 to 65535"),
        ("TALLYBOOK_PARTITIONS", "0", "TALLYBOOK_PARTITIONS is '0'; it is a whole number from 1 to 1024"),
        ("TALLYBOOK_REUSE_PORT", "maybe", "TALLYBOOK_REUSE_PORT is 'maybe'; it is true or false"),
        ("TALLYBOOK_LOG_LEVEL", "loud", "TALLYBOOK_LOG_LEVEL is 'loud'; it is one of debug, info, warning, error"),
    ],
)
def test_a_value_that_breaks_its_rule_is_named(variable: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        settings.from_environment({variable: value})


def test_the_hot_window_is_never_longer_than_the_retention() -> None:
    with pytest.raises(SettingsError, match="TALLYBOOK_HOT_WINDOW_H is 72, more than the 2 days"):
        settings.from_environment({"TALLYBOOK_RETENTION_DAYS": "2"})


def test_every_whole_number_has_bounds() -> None:
    for name, value in settings.to_environment(Settings()).items():
        if value.isdigit():
            with pytest.raises(SettingsError, match=name):
                settings.from_environment({name: "999999999"})


def test_a_misspelled_variable_is_pointed_out_and_a_foreign_one_is_left_alone() -> None:
    environment = {"TALLYBOOK_RETENTION_DAY": "9", "TALLYBOOK_API_KEY": "ck_1", "TALLYBOOK_PORT": "1"}
    assert settings.misspelled(environment) == ["TALLYBOOK_RETENTION_DAY is not read; did you mean TALLYBOOK_RETENTION_DAYS?"]


def test_a_process_that_needs_the_stores_says_which_one_is_missing() -> None:
    settings.require_stores(Settings(postgres_url="postgresql://a/b", redis_url="redis://c"))
    with pytest.raises(SettingsError, match="TALLYBOOK_REDIS_URL is not set"):
        settings.require_stores(Settings(postgres_url="postgresql://a/b"))


@pytest.mark.parametrize(("months", "days"), [("1", "35"), ("1", "28"), ("2", "60")])
def test_single_events_are_kept_for_as_long_as_repeats_are_looked_for(months: str, days: str) -> None:
    with pytest.raises(SettingsError, match=f"TALLYBOOK_RAW_EVENTS_MONTHS is {months}, less than the {days} days"):
        settings.from_environment({"TALLYBOOK_RAW_EVENTS_MONTHS": months, "TALLYBOOK_RETENTION_DAYS": days})


def test_months_that_reach_further_than_repeats_are_taken() -> None:
    environment = {"TALLYBOOK_RAW_EVENTS_MONTHS": "2", "TALLYBOOK_RETENTION_DAYS": "35"}
    assert settings.from_environment(environment).raw_events_months == 2


@pytest.mark.parametrize(("months", "hours", "days"), [("1", "336", "28"), ("2", "840", "70")])
def test_single_events_are_kept_for_as_long_as_the_till_may_remember_their_ids(months: str, hours: str, days: str) -> None:
    environment = {
        "TALLYBOOK_RAW_EVENTS_MONTHS": months,
        "TALLYBOOK_RETENTION_DAYS": "27" if months == "1" else "35",
        "TALLYBOOK_HOT_WINDOW_H": hours,
    }
    with pytest.raises(SettingsError, match=f"TALLYBOOK_RAW_EVENTS_MONTHS is {months}, less than the {days} days"):
        settings.from_environment(environment)
    environment["TALLYBOOK_HOT_WINDOW_H"] = str(int(hours) // 2)
    assert settings.from_environment(environment).raw_events_months == int(months)
