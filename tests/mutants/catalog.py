"""Ways to break the product, each with the promise it breaks and the test that must notice.

A mutant is one small replacement of text that is in its file exactly once. When a change of the code moves that text, the test of this
folder says so: adapt `old` and `new` so that they break the same promise again.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way. `file` is below src/tallybook; `invariant` is a number of INVARIANTS.md; `quick` needs no stores to be noticed."""

    name: str
    invariant: int
    file: str
    old: str
    new: str
    test: str
    quick: bool = False


_TILL = "tests/integration/test_till.py::"
_STRANGERS = "tests/integration/test_till_strangers.py::"
_ROLLUP = "tests/integration/test_rollup.py::"
_REBUILD = "tests/integration/test_rebuild.py::"
_COST = "tests/unit/pricing/test_cost.py::"
_TRANSACTIONS = "tests/integration/test_one_transaction.py::"
_REPRICED = "tests/integration/test_second_dedupe_rerated.py::"

THE_TILL = (
    Mutant(
        "dedupe is skipped",
        3,
        "charge/charge.lua",
        "call('HSETNX', remembered, field, memory) == 1",
        "call('HSET', remembered, field, memory) >= 0",
        _TILL + "test_a_repeat_answers_with_the_original_and_another_payload_is_a_conflict",
    ),
    Mutant(
        "the generation before is not looked into",
        3,
        "charge/charge.lua",
        "call('HGET', remembered_before .. high .. nibble, field)",
        "nil",
        _TILL + "test_an_identity_outlives_one_generation_and_is_freed_after_two",
    ),
    Mutant(
        "a conflict passes for a duplicate",
        3,
        "charge/charge.lua",
        "sub(seen, 1, 8) == payload and DUPLICATE or CONFLICT",
        "DUPLICATE",
        _TILL + "test_a_repeat_answers_with_the_original_and_another_payload_is_a_conflict",
    ),
    Mutant(
        "the customer is no part of the identity",
        3,
        "core/ids.py",
        "{tenant_id}\\0{customer_id}\\0{event_id}",
        "{tenant_id}\\0{event_id}",
        _STRANGERS + "test_the_same_id_of_another_customer_in_the_same_partition_is_another_event",
    ),
    Mutant(
        "the version of terms is not compared",
        2,
        "charge/charge.lua",
        "if tenant_version < known or version < known_version then return true end",
        "",
        _TILL + "test_older_terms_are_stale_and_nothing_is_recorded",
    ),
    Mutant(
        "the epoch is not compared",
        11,
        "charge/charge.lua",
        "if meta[1] ~= epoch then",
        "if false then",
        _STRANGERS + "test_a_till_that_was_given_another_epoch_in_the_same_run_of_its_server_takes_nothing",
    ),
    Mutant(
        "a till that went back is charged",
        11,
        "charge/charge.lua",
        "if tonumber(meta[5] or '0') < tonumber(told) then",
        "if false then",
        _REBUILD + "test_a_copy_put_back_without_a_restart_is_noticed_by_whoever_was_told_more",
    ),
    Mutant(
        "a restarted server is charged without asking the book",
        11,
        "charge/charge.lua",
        "if meta[4] ~= run then",
        "if false then",
        _REBUILD + "test_a_restarted_redis_is_not_charged_while_the_book_cannot_say_whether_it_is_whole",
    ),
    Mutant(
        "a refused event stays deducted",
        4,
        "charge/charge.lua",
        "    call('HSET', customer_key, pool, left)\n    return REFUSED, ''\nend\n\n-- What is taken",
        "    return REFUSED, ''\nend\n\n-- What is taken",
        _TILL + "test_a_blocking_pool_gives_exactly_what_it_holds_and_a_refused_event_leaves_no_trace",
    ),
    Mutant(
        "a frozen customer is charged",
        12,
        "charge/charge.lua",
        "if frozen then",
        "if false then",
        _TILL + "test_a_frozen_customer_is_refused_until_thawed_and_repeats_are_still_answered",
    ),
    Mutant(
        "an amount becomes a Lua number",
        5,
        "charge/charge.lua",
        "if number <= EXACT and number >= -EXACT then return number end",
        "return number",
        _TILL + "test_small_amounts_are_taken_exactly_from_a_pool_that_doubles_cannot_hold",
    ),
    Mutant(
        "an answer is given before the script has replied",
        1,
        "charge/lane.py",
        "            receipts = await self._send(charges)\n",
        "            asyncio.ensure_future(self._send(charges))\n            receipts = [Receipt(0, one.amount) for one in charges]\n",
        "tests/unit/charge/test_lane.py::test_every_request_of_a_failed_call_hears_of_it_and_the_next_call_goes_on",
        quick=True,
    ),
    Mutant(
        "a lost answer is told as a failure",
        7,
        "charge/fence.py",
        'return errors.Unavailable("till_unavailable", f"Redis did not answer',
        'return errors.Conflict("till_unavailable", f"Redis did not answer',
        _TILL + "test_a_closed_redis_is_unavailable_not_a_loss_of_words",
    ),
    Mutant(
        "Redis may sync once a second",
        1,
        "storage/redis.py",
        '"appendfsync": "always"',
        '"appendfsync": "everysec"',
        "tests/integration/test_storage.py::test_redis_as_embedded_is_durable",
    ),
    Mutant(
        "what a torn write left is not cut off",
        1,
        "charge/fence.py",
        'if await self._run("ask") == _RESTARTED:',
        'if await self._run("ask") == b"never":',
        "tests/integration/test_torn_tail.py::test_a_torn_transaction_never_comes_back",
    ),
)

THE_BOOK = (
    Mutant(
        "the offset is committed apart from its rows",
        8,
        "rollup/store.py",
        "    await advance(connection, passed, effects, rolled_at, epoch)\n",
        '    await advance(connection, passed, effects, rolled_at, epoch)\n    await connection.execute("COMMIT; BEGIN")\n',
        _ROLLUP + "test_a_kill_between_offset_and_effects_leaves_neither",
    ),
    Mutant(
        "the offset is set without comparing",
        8,
        "rollup/queries.sql",
        " AND held.last_seq = pass.previous",
        "",
        _ROLLUP + "test_the_same_pass_twice_is_refused_the_second_time",
    ),
    Mutant(
        "entries are trimmed before they are committed",
        9,
        "rollup/actions.py",
        "    result = await _book(",
        "    await log_reader.trim(client, [(one.partition, one.last) for one in passed], epoch)\n    result = await _book(",
        _ROLLUP + "test_entries_are_trimmed_only_after_their_commit",
    ),
    Mutant(
        "one entry too many is trimmed",
        9,
        "rollup/log_reader.py",
        '("XTRIM", key(partition), "MINID", "~", f"{seq + 1}-0")',
        '("XTRIM", key(partition), "MINID", f"{seq + 2}-0")',
        _ROLLUP + "test_trimming_never_takes_an_entry_beyond_the_committed_one",
    ),
    Mutant(
        "the log is trimmed by its length",
        9,
        "rollup/log_reader.py",
        "redis.call('XTRIM', KEYS[2], 'MINID', '~', ARGV[2])",
        "redis.call('XTRIM', KEYS[2], 'MAXLEN', 1)",
        _TRANSACTIONS + "test_a_log_with_an_epoch_keeps_every_entry_that_is_not_committed",
    ),
    Mutant(
        "a missing entry is skipped",
        9,
        "rollup/actions.py",
        "        if entry.seq != expected:\n",
        "        if entry.seq < expected:\n",
        _ROLLUP + "test_a_gap_stops_its_partition_after_what_comes_before_it_and_no_other",
    ),
    Mutant(
        "pools are written twice",
        10,
        "rollup/store.py",
        '    await _add(connection, "add_pools", effects.pools)\n',
        '    await _add(connection, "add_pools", effects.pools)\n    await _add(connection, "add_pools", effects.pools)\n',
        _ROLLUP + "test_a_pass_writes_events_totals_pools_ledger_and_the_offset",
    ),
    Mutant(
        "changes of a pool are taken in the wrong order",
        10,
        "rollup/aggregate.py",
        '.sort_by("seq", "place").last()',
        '.sort_by("seq", "place").first()',
        "tests/unit/rollup/test_aggregate.py::test_a_pool_that_is_opened_again_after_its_expiry_is_not_closed",
    ),
    Mutant(
        "differences that cancel out are overlooked",
        12,
        "rollup/sums.py",
        "return self.left == self.right and self.differing == 0",
        "return self.left == self.right",
        "tests/integration/test_reconcile.py::test_a_book_that_was_changed_by_hand_is_found_out",
    ),
)

MONEY = (
    Mutant(
        "money is divided in floating point",
        5,
        "core/money.py",
        "    quotient, remainder = divmod(numerator, denominator)\n    twice",
        "    return round(numerator / denominator)\n    quotient, remainder = divmod(numerator, denominator)\n    twice",
        "tests/unit/core/test_money.py::test_rounding_is_never_off_by_more_than_half",
    ),
    Mutant(
        "halves are rounded up",
        5,
        "core/money.py",
        "(twice == denominator and quotient & 1)",
        "twice == denominator",
        "tests/unit/core/test_money.py::test_halves_go_to_the_even_neighbour",
        quick=True,
    ),
    Mutant(
        "cached tokens cost what input costs",
        12,
        "pricing/cost.py",
        "+ read * rates.cache_read",
        "+ read * rates.input",
        _COST + "test_the_documentation_example_costs_04185_and_is_charged_05022",
        quick=True,
    ),
    Mutant(
        "a band begins one token late",
        12,
        "pricing/cost.py",
        "if total < schedule.second_from else",
        "if total <= schedule.second_from else",
        _COST + "test_a_band_starts_at_its_boundary_and_holds_for_every_token",
        quick=True,
    ),
    Mutant(
        "a price that is not listed is 0",
        15,
        "pricing/cost.py",
        "if rates.output is None and usage.output_tokens:",
        "if False:",
        _COST + "test_what_has_no_price_is_an_error_and_never_free",
    ),
)

THE_PLATFORM = (
    Mutant(
        "a period is billed before the book has read its log",
        13,
        "flows/period.py",
        "    behind = await catch_up(services, goals)\n",
        "    behind = set[int]()\n",
        "tests/integration/test_periods_closing.py::test_nothing_is_billed_before_the_book_has_read_what_the_till_took",
    ),
    Mutant(
        "a pool has no period",
        13,
        "core/pools.py",
        'f"{subscription_id}.b.{period_start_s}"',
        'f"{subscription_id}.b.0"',
        "tests/integration/test_periods.py::test_an_overdrawn_balance_is_billed_when_its_period_ends_and_starts_anew",
    ),
    Mutant(
        "another tenant's customer is found",
        3,
        "customers/queries.sql",
        "WHERE tenant_id = $1 AND (public_id = $2 OR external_id = $2)",
        "WHERE $1::integer IS NOT NULL AND (public_id = $2 OR external_id = $2)",
        "tests/integration/test_customers.py::test_another_organization_and_the_other_mode_see_nothing",
    ),
    Mutant(
        "a body is read to its end however long it is",
        14,
        "entrypoints/http/bodies.py",
        "                if len(body) > bytes_max:\n                    raise",
        "                if len(body) < 0:\n                    raise",
        "tests/integration/test_http_frame.py::test_a_chunked_body_is_cut_off_while_it_is_read",
    ),
    Mutant(
        "a revoked key is accepted",
        14,
        "tenancy/actions.py",
        " or on_file.revoked_at is not None",
        "",
        "tests/integration/test_tenancy.py::test_a_wrong_secret_an_unknown_key_and_a_revoked_one_are_nobody",
    ),
    Mutant(
        "the response of an Idempotency-Key is stored apart from its effect",
        6,
        "entrypoints/http/writes.py",
        "            await _keep(",
        '            await call.connection.execute("COMMIT; BEGIN")\n            await _keep(',
        _TRANSACTIONS + "test_a_write_whose_response_could_not_be_stored_has_no_effect",
    ),
    Mutant(
        "an announcement is queued apart from what it tells of",
        6,
        "invoice/actions.py",
        '    await tenancy.announce(connection, tenant, "invoice.created"',
        '    await connection.execute("COMMIT; BEGIN")\n    await tenancy.announce(connection, tenant, "invoice.created"',
        _TRANSACTIONS + "test_an_invoice_that_could_not_be_announced_is_not_issued",
    ),
    Mutant(
        "an adjustment has no identity",
        6,
        "flows/adjustment.py",
        "digest=ids.event_digest(terms.tenant.id, terms.customer_id, identity)",
        'digest=__import__("os").urandom(16)',
        "tests/integration/test_usage_replays.py::test_an_adjustment_that_was_not_committed_is_the_same_one_in_the_next_period",
    ),
    Mutant(
        "a void has no identity",
        6,
        "flows/void.py",
        'digest=ids.event_digest(record.tenant_id, record.customer_id, f"\\x01void\\x01{event.place}")',
        'digest=__import__("os").urandom(16)',
        "tests/integration/test_voids.py::test_a_void_is_made_once",
    ),
    Mutant(
        "the sweep finds and gives nothing back",
        3,
        "flows/repeats.py",
        "taken, left_over = await _take_back(services, chunk[customer_id], list(repeats))",
        "taken, left_over = len(list(repeats)), 0",
        "tests/integration/test_second_dedupe.py::test_the_sweep_takes_back_an_undated_event_that_was_counted_again",
    ),
    Mutant(
        "the sweep leaves taken what re-ratings took",
        12,
        "flows/repeats.py",
        "if event.place in shares",
        "if False",
        _REPRICED + "test_the_sweep_gives_back_what_re_ratings_made_of_the_repeat",
    ),
    Mutant(
        "the sweep does not wait for a re-rating",
        12,
        "flows/repeats.py",
        "await rerated.wait_for_no_rerate(connection)",
        "pass",
        _REPRICED + "test_while_a_re_rating_runs_the_sweep_waits_for_it",
    ),
)

MUTANTS = (*THE_TILL, *THE_BOOK, *MONEY, *THE_PLATFORM)
