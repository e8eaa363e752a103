"""The checks, in environments of their own.

    nox --list
    nox -s "tests-3.12(redis)"      one Python, one backend
    nox -s lint typing

Pythons that are not on this machine are skipped, with a word.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = [version for version in nox.project.python_versions(PROJECT) if version != "3"]
BACKENDS = ["memory", "redis", "nats", "rabbit", "kafka"]
EXTRAS = list(PROJECT["project"]["optional-dependencies"])
CONTAINERS = ["redis", "nats"]
TWO_AT_ONCE = ["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"]
NO_ENGINE = 75
"""What tests/containers/engine.py ends with where no engine can be had."""

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "tests"]


def find_pyenv() -> None:
    """Put Pythons of pyenv that no `pyenv global` names on the PATH: its shims of them fail."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    folders = [str(found) for version in PYTHONS for found in sorted(versions.glob(f"{version}.*/bin"))[-1:]]
    os.environ["PATH"] = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])


find_pyenv()


def groups(*names: str) -> list[str]:
    """The requirements of dependency groups: not every pip and uv understands --group."""
    return nox.project.dependency_groups(PROJECT, *names)


@nox.session(python=PYTHONS)
@nox.parametrize("backend", BACKENDS, ids=BACKENDS)
def tests(session: nox.Session, backend: str) -> None:
    """All tests, those of the backends on one of them."""
    session.install("-e", ".[all]", *groups("test"))
    session.run("pytest", "--backend", backend, *session.posargs)


@nox.session
def uvloop(session: nox.Session) -> None:
    """The contract and the adapters' own tests on uvloop, on all backends, and the crash rig in small."""
    session.install("-e", ".[all,speed]", *groups("test"))
    tests = ["tests/contract", "tests/adapters", "tests/faults", "tests/rig"]
    session.run("pytest", *(session.posargs or tests), env={"EVENTKIT_TEST_LOOP": "uvloop"})


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, and the direction of imports."""
    session.install("-e", ".", *groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    """mypy (strict) and pyright."""
    session.install("-e", ".[all]", *groups("test", "typing"))
    session.run("mypy")
    session.run("pyright")


@nox.session(python=PYTHONS)
def package(session: nox.Session) -> None:
    """The wheel and the sdist, in an environment that has nothing else of this project: without extras, as a user's
    type checkers see it, then with tests."""
    built = Path(session.create_tmp()).resolve()
    shutil.rmtree(built)
    built.mkdir()
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(built), ".", silent=True)
    wheel, sdist = next(built.glob("*.whl")), next(built.glob("*.tar.gz"))
    session.log(f"built {wheel.name} and {sdist.name}")
    packaging, elsewhere = ROOT / "tests" / "packaging", built / "of the wheel"
    for archive, folder in ((sdist, built / "of the sdist"), (wheel, elsewhere)):
        session.install("--force-reinstall", str(archive))
        folder.mkdir()
        with session.chdir(folder):  # where no source tree can stand in for what is installed
            session.run("python", packaging / "installed.py", str(wheel))
    with session.chdir(elsewhere):
        session.install(*groups("typing"))
        session.run("python", packaging / "outside.py", f"{session.bin}/python", "mypy", "pyright")
        session.install(f"{wheel}[all]", *groups("test"))  # some tests know the adapters
        for name in ("tests", "examples", "docs"):
            shutil.copytree(ROOT / name, elsewhere / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", elsewhere)
        tests = ["--backend", "memory", "tests/unit", "tests/contract/test_contract.py", "tests/contract/test_port.py"]
        session.run("pytest", *(session.posargs or [*TWO_AT_ONCE, *tests]))


@nox.session
@nox.parametrize("extra", EXTRAS, ids=EXTRAS)
def extras(session: nox.Session, extra: str) -> None:
    """Each extra alone, from a wheel: what it brings is enough for what it is for, on a real broker where it is one."""
    session.install("--force-reinstall", f".[{extra}]")  # built apart: nothing of a builder is here that it may need
    folder = Path(session.create_tmp()).resolve()
    with session.chdir(folder):  # where no source tree can stand in for the wheel
        session.run("python", ROOT / "tests" / "packaging" / "alone.py", extra)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The oldest versions that pyproject.toml allows, also of what the extras bring, on the oldest Python: they go
    together, and the tests of what stands on them pass, on all brokers."""
    session.install("uv")
    python = f"{session.bin}/python"
    oldest = Path(session.create_tmp()).resolve() / "oldest.txt"
    wanted = ["uv", "pip", "compile", "-q", "--python", python, "--resolution", "lowest-direct", "--no-annotate"]
    session.run(*wanted, "pyproject.toml", "--all-extras", "-o", str(oldest))
    session.run("uv", "pip", "install", "-q", "--python", python, "-r", str(oldest))
    session.run("uv", "pip", "install", "-q", "--python", python, "-c", str(oldest), "-e", ".", *groups("test"))
    session.run("python", "tests/packaging/oldest.py", "pyproject.toml")
    tests = ["tests/unit", "tests/contract/test_contract.py", "tests/adapters", "tests/asyncapi", "tests/metrics"]
    tests += ["tests/once/test_sql_once.py", "tests/otel", "tests/security", "tests/ui", "tests/web"]
    session.run("pytest", *(session.posargs or [*TWO_AT_ONCE, *tests]))


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmark against FastStream and the raw clients on real brokers, and task queues on Redis."""
    session.install("-e", ".[all]", *groups("test", "bench"))
    session.run("python", "-m", "bench", *session.posargs)


@nox.session
@nox.parametrize("servers", ["one", "cluster"], ids=["one", "cluster"])
def crash(session: nox.Session, servers: str) -> None:
    """The crash rig, long: kills on each broker; what was seen goes to docs/reliability.md. With a cluster of three
    servers, the leader's. Arguments: brokers, --rounds (100 kills of one server, 12 in a cluster), --seed."""
    session.install("-e", ".[all]", *groups("test"))
    cluster = ["--cluster", "--rounds", "12"] if servers == "cluster" else []
    if cluster and not session.posargs:
        session.run("pytest", "tests/rig/clusters", env={"EVENTKIT_TEST_CLUSTERS": "1"})
    session.run("python", "-m", "tests.rig", "--page", "docs/reliability.md", *cluster, *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Breaks the source in many ways, one at a time, in a copy: the check that is named for each must turn red."""
    session.install("-e", ".[all]", *groups("test"))
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Every code block of the documents is run."""
    session.install("-e", ".[all]", *groups("test"))
    session.run("pytest", "tests/test_readme.py", *session.posargs)


@nox.session
def site(session: nox.Session) -> None:
    """The site of the documents and the reference, into build/site; it needs no network to be read."""
    session.install("-e", ".[all,fastapi,otel,prometheus]", *groups("site"))
    session.run("python", "-m", "sphinx", "-E", "-W", "--keep-going", "-b", "html", "docs", "build/site")


@nox.session
def containers(session: nox.Session) -> None:
    """The contract on Redis and NATS in containers; skipped where no Docker engine can be had."""
    session.install("-e", f".[{','.join(CONTAINERS)}]", *groups("test"))
    backends = [word for name in CONTAINERS for word in ("--backend", name)]
    contract = [f"{session.bin}/pytest", "tests/test_brokers.py", "tests/contract/test_contract.py", *backends]
    engine = [f"{session.bin}/python", "tests/containers/engine.py", "--", *contract]
    done = subprocess.run(engine, check=False).returncode  # session.run cannot tell "no engine" from a failure
    if done == NO_ENGINE:
        session.skip("no Docker engine can be had here: see above")
    if done:
        session.error(f"the contract did not hold in containers (exit code {done})")
    ledger = Path("build/ledger.json").replace("build/ledger-containers.json")
    found = json.loads(ledger.read_text(encoding="utf-8"))["backends"]
    elsewhere = [name for name in CONTAINERS if found[name]["how"] != "container"]
    if elsewhere:
        session.error(f"not in a container: {', '.join(elsewhere)}")
