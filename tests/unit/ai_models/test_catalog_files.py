"""The catalog's files: what ships, and that nothing but the command's own writing is read."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tallybook.ai_models import catalog_files, rules
from tallybook.ai_models.catalog_files import BrokenCatalogError, Catalog
from tallybook.ai_models.model import Model, ModelList
from tallybook.cli import models as command
from tallybook.pricing.rates import Band, Listed, Price

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


def model(model_id: str, pico: int | None = 1_000) -> Model:
    price = None if pico is None else Price((Band(0, Listed(pico, pico)),))
    return Model(model_id, model_id.partition("/")[0], model_id, "language", price=price)


def catalog(before: Catalog | None, now: datetime, *models: Model) -> Catalog:
    plan = rules.plan(before.known() if before else {}, ModelList(models))
    assert plan.refused is None
    return catalog_files.apply(before, plan, "test", now, "00")


def write(folder: Path) -> Catalog:
    first = catalog(None, NOW, model("lab/a"), model("lab/b"), model("Other/c", None), model("lab/d"))
    second = catalog(first, LATER, model("lab/a", 2_000), model("Other/c", None), model("lab/d"))
    catalog_files.write(folder, second)
    return second


def gateway_list(folder: Path, *prices: str) -> str:
    rows = [
        {"id": f"lab/m{at}", "type": "language", "pricing": {"input": each, "output": each}} for at, each in enumerate(prices)
    ]
    path = folder / "list.json"
    path.write_text(json.dumps({"data": rows}))
    return str(path)


def run(*words: str) -> int:
    import argparse  # noqa: PLC0415 - only here

    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(words))


def test_the_packaged_catalog_prices_at_least_180_models_with_provenance() -> None:
    found = catalog_files.read(catalog_files.packaged())
    assert found.priced() >= 180
    assert found.source == "https://ai-gateway.vercel.sh/v1/models"
    assert len(found.digest) == 64


def test_the_schemas_beside_the_catalog_are_those_of_the_code() -> None:
    for name, data in catalog_files.schemas().items():
        assert (catalog_files.packaged() / name).read_bytes() == data


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    written = write(tmp_path)
    assert catalog_files.read(tmp_path) == written


def test_history_is_appended_and_removals_are_dated(tmp_path: Path) -> None:
    found = write(tmp_path).entries
    assert [(each.effective_from, each.price.standard[0].listed.input) for each in found["lab/a"].prices] == [
        (NOW, 1_000),
        (LATER, 2_000),
    ]
    assert found["lab/b"].removed_at == LATER
    assert len(found["lab/b"].prices) == 1
    assert found["Other/c"].prices == ()


def test_a_price_that_returns_is_a_new_entry() -> None:
    first = catalog(None, NOW, model("lab/a"), model("lab/b"))
    second = catalog(first, LATER, model("lab/a", 2_000), model("lab/b"))
    third = catalog(second, LATER + timedelta(days=1), model("lab/a"), model("lab/b"))
    assert len(third.entries["lab/a"].prices) == 3


def test_a_shard_edited_by_hand_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    shard = tmp_path / "providers" / "lab.json"
    shard.write_bytes(shard.read_bytes().replace(b'"0.001"', b'"0.002"'))
    with pytest.raises(BrokenCatalogError, match="sha256"):
        catalog_files.read(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models", 99),
        ("priced", 0),
        ("format", 2),
        ("extra", 1),
        ("fetchedAt", "soon"),
        ("shards", [{"file": "../x.json", "models": 1, "sha256": ""}]),
    ],
)
def test_a_manifest_that_contradicts_the_shards_is_refused(tmp_path: Path, key: str, value: object) -> None:
    write(tmp_path)
    manifest = tmp_path / catalog_files.MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), key: value}))
    with pytest.raises(BrokenCatalogError):
        catalog_files.read(tmp_path)


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "providers" / "other.json").unlink()
    with pytest.raises(BrokenCatalogError):
        catalog_files.read(tmp_path)


def test_a_shard_of_a_provider_that_is_gone_is_deleted(tmp_path: Path) -> None:
    write(tmp_path)
    catalog_files.write(tmp_path, catalog(None, NOW, model("lab/a")))
    assert [path.name for path in (tmp_path / "providers").iterdir()] == ["lab.json"]


def test_a_book_of_the_files_prices_by_time(tmp_path: Path) -> None:
    entry = catalog_files.book(write(tmp_path)).resolve(1, "lab/a").entry
    before, after = int(NOW.timestamp() * 1000), int(LATER.timestamp() * 1000)
    assert [entry.row_at(at).listed.standard[0].listed.input for at in (0, before, after - 1, after)] == [
        1_000,
        1_000,
        1_000,
        2_000,
    ]


def test_the_sync_command_writes_a_catalog_and_then_only_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "catalog")
    assert run("sync", "--source", gateway_list(tmp_path, "0.000001", "0.000002", "0.000003"), "--catalog", folder) == 0
    first = catalog_files.read(tmp_path / "catalog")
    assert (len(first.entries), first.source) == (3, "list.json")
    assert run("sync", "--source", str(tmp_path / "list.json"), "--catalog", folder) == 0
    assert "unchanged" in capsys.readouterr().out
    assert run("sync", "--source", gateway_list(tmp_path, "0.000001", "-1", "0.000004"), "--catalog", folder) == 0
    told = capsys.readouterr().out
    assert "repriced lab/m2: 3 / 3 -> 4 / 4" in told
    assert "quarantined lab/m1" in told
    found = catalog_files.read(tmp_path / "catalog").entries
    assert [len(found[f"lab/m{number}"].prices) for number in range(3)] == [1, 1, 2]


def test_the_sync_command_leaves_the_catalog_alone_when_the_list_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "catalog"
    run("sync", "--source", gateway_list(tmp_path, "0.000001", "0.000002", "0.000003"), "--catalog", str(folder))
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    assert run("sync", "--source", gateway_list(tmp_path, "0.000001"), "--catalog", str(folder)) == 1
    (tmp_path / "list.json").write_text("<html>")
    assert run("sync", "--source", str(tmp_path / "list.json"), "--catalog", str(folder)) == 1
    assert run("sync", "--source", str(tmp_path / "none.json"), "--catalog", str(folder)) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before
    assert "refused" in capsys.readouterr().out


def test_a_price_jump_is_published_once_it_is_accepted(tmp_path: Path) -> None:
    folder = str(tmp_path / "catalog")
    run("sync", "--source", gateway_list(tmp_path, "0.000001", "0.000002"), "--catalog", folder)
    jumped = gateway_list(tmp_path, "0.000100", "0.000002")
    run("sync", "--source", jumped, "--catalog", folder)
    assert len(catalog_files.read(Path(folder)).entries["lab/m0"].prices) == 1
    run("sync", "--source", jumped, "--catalog", folder, "--accept", "lab/m0")
    assert len(catalog_files.read(Path(folder)).entries["lab/m0"].prices) == 2


def test_the_quote_command_prices_with_the_packaged_catalog(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TALLYBOOK_POSTGRES_URL", raising=False)
    words = "quote claude-sonnet-4-6 --input 10000 --output 2000 --cache-read 7000 --cache-write 1000 --margin 20"
    assert run(*words.split()) == 0
    told = capsys.readouterr().out
    assert "anthropic/claude-sonnet-4.6 (matched by punctuation)" in told
    assert "$0.04185" in told
    assert "$0.05022" in told
