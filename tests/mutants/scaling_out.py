"""Ways to break what a Redis Cluster and dropped months rely on; see `catalog.py`."""

from tests.mutants.mutant import Mutant

_CLUSTER = "tests/integration/test_redis_cluster.py::"
_APART = "tests/integration/test_redis_cluster_apart.py::"
_RETENTION = "tests/integration/test_retention.py::"

SCALING_OUT = (
    Mutant(
        "one lane serves all masters of a cluster",
        7,
        "charge/till.py",
        "return self._redis.server_of(partitions.prefix(partition))",
        'return ""',
        _CLUSTER + "test_nobody_else_waits_for_a_master_that_stands_still_and_the_api_stays_ready",
    ),
    Mutant(
        "a master that went back closes one partition of its",
        11,
        "charge/fence.py",
        "await self._close((await self._neighbours(partition))[1], str(error))",
        "await self._close([partition], str(error))",
        _CLUSTER + "test_a_master_that_lost_what_it_acknowledged_is_closed_and_the_others_are_not",
    ),
    Mutant(
        "the epoch is given to a cluster that is partly another's",
        11,
        "charge/fence.py",
        'await self._run("probe", every)',
        "pass",
        _CLUSTER + "test_nobody_gets_the_epoch_when_one_master_belongs_to_another_installation",
    ),
    Mutant(
        "one master that is away leaves everybody's terms untold",
        7,
        "flows/terms.py",
        "if not till.fails_apart:",
        "if till.fails_apart:",
        _APART + "test_what_the_till_of_a_dead_master_can_not_be_told_holds_up_nobody_elses_change",
    ),
    Mutant(
        "each command waits for a silent master in its turn",
        7,
        "storage/redis_cluster.py",
        '            raise SilenceError(f"{server.name} has not answered in time, and is waited for")',
        "            pass",
        "tests/unit/storage/test_redis_cluster.py::"
        "test_a_server_that_let_a_command_run_into_the_timeout_is_sent_no_other_until_it_answers",
    ),
    Mutant(
        "a month is dropped with its sums of pools",
        12,
        "rollup/retention.py",
        '("keep_hourly", "keep_moves", "note_starts")',
        '("keep_hourly", "note_starts")',
        _RETENTION + "test_sums_reports_and_invoices_stay_when_their_events_go",
    ),
    Mutant(
        "a month is dropped before it is billed",
        13,
        "rollup/retention.py",
        "if unbilled is not None:",
        "if unbilled == -1:",
        _RETENTION + "test_a_month_stays_while_a_period_is_open_that_pays_for_something_in_it",
    ),
)
