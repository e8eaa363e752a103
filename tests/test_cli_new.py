"""`eventkit new`: the project that it writes, used as its owner would, and what it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from eventkit.cli import app
from eventkit.cli.project import package_name, write_project
from eventkit.contract.checks import fresh_namespace
from eventkit.errors import DeclarationError
from eventkit.testing.brokers import NAMES, Broker
from eventkit.testing.brokers.compose import compose
from tests.programs import EVENTKIT, ROOT, Program
from tests.wanted import wanted


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "one_real" in metafunc.fixturenames:
        metafunc.parametrize("one_real", [name for name in wanted(metafunc.config) if name != "memory"][:1])


def new(*arguments: str, cwd: Path) -> tuple[int, str]:
    with Program(*EVENTKIT, "new", *arguments, cwd=cwd) as program:
        return program.wait(30), program.output


def test_a_new_project_passes_its_tests_and_runs(tmp_path: Path) -> None:
    code, output = new("order-service", cwd=tmp_path)
    assert code == 0, output
    assert output.startswith("made order-service\n")
    project = tmp_path / "order-service"
    with Program(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", cwd=project) as tests:
        assert tests.wait(60) == 0, tests.output
        assert "2 passed" in tests.output
    with Program(*EVENTKIT, "run", cwd=project) as service:
        service.wait_for(r"order-service +inbox order-service +PlaceOrder\n")
        service.tell(signal.SIGTERM)
        assert service.wait(20) == 0, service.output


def test_a_new_project_works_on_its_broker(tmp_path: Path, one_real: str, broker: Callable[[str], Broker]) -> None:
    project = write_project("order-service", one_real, tmp_path)
    settings = (project / ".env.example").read_text(encoding="utf-8")
    assert f"EVENTKIT_BROKER={one_real}\n" in settings
    settings = "".join(line for line in settings.splitlines(keepends=True) if not line.startswith("EVENTKIT_URL"))
    namespace = fresh_namespace()
    env = {"EVENTKIT_BROKER": one_real, "EVENTKIT_URL": broker(one_real).url, "EVENTKIT_NAMESPACE": namespace}
    (project / ".env").write_text(settings + "".join(f"{name}={value}\n" for name, value in env.items()))
    with Program(*EVENTKIT, "run", "--env-file", ".env", cwd=project) as service:
        service.wait_for("PlaceOrder")
        with Program(sys.executable, "-m", "order_service.order", cwd=project, env=env) as customer:
            assert customer.wait(30) == 0, customer.output
            assert "ordered 2 pieces, order " in customer.output
        service.wait_for("a parcel with 2 pieces for order")
        service.tell(signal.SIGTERM)
        assert service.wait(30) == 0, service.output


@pytest.mark.parametrize("broker_name", NAMES)
def test_what_is_written(tmp_path: Path, broker_name: str) -> None:
    project = write_project("big-shop_2", broker_name, tmp_path)
    files = {str(path.relative_to(project)): path.read_text() for path in project.rglob("*") if path.is_file()}
    assert set(files) == {
        ".env.example",
        ".github/workflows/ci.yml",
        ".gitignore",
        "README.md",
        "big_shop_2/__init__.py",
        "big_shop_2/messages.py",
        "big_shop_2/order.py",
        "big_shop_2/service.py",
        "compose.yaml",
        "pyproject.toml",
        "tests/test_service.py",
    }
    assert not [path for path, text in files.items() if "@@" in text]
    assert files["compose.yaml"] == compose([broker_name])
    said = tomllib.loads(files["pyproject.toml"])["project"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert said["dependencies"] == [f"faststream-eventkit[{broker_name}]>=0.1.0,<0.2"]
    assert {"docs", "reload", broker_name} <= set(extras)
    assert "tests" in yaml.safe_load(files[".github/workflows/ci.yml"])["jobs"]
    assert not [path for path in tmp_path.iterdir() if path != project], "nothing else is left"


def test_its_code_is_clean(tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    project = write_project("order-service", "redis", tmp_path)
    for arguments in (["check", "--isolated", "--line-length", "120", "--select", "E,F,I,B,UP,N,RUF,SIM"], []):
        command = [sys.executable, "-m", "ruff", *(arguments or ["format", "--check", "--line-length", "120"]), "."]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Order", "lower-case letters"),
        ("1shop", "begins with a letter"),
        ("../shop", "lower-case letters"),
        ("a--b", "single dashes"),
        ("ünder", "lower-case letters"),
        ("a" * 61, "at most 60"),
        ("class", "has a meaning of its own"),
        ("match", "has a meaning of its own"),
        ("tests", "has a meaning of its own"),
        ("json", "would hide the module json"),
        ("pydantic", "would hide the module pydantic"),
        ("eventkit", "would hide the module eventkit"),
    ],
)
def test_names_that_will_not_do(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        package_name(name)
    with pytest.raises(DeclarationError):
        write_project(name, "redis", tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.py").write_text("mine")
    code, output = new("shop", cwd=tmp_path)
    assert (code, output) == (2, "eventkit: shop is there already, and nothing is written over: choose another name\n")
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["mine.py"]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for name in ("file", "link"):
        with pytest.raises(DeclarationError, match="is there already"):
            write_project(name, "redis", tmp_path)
    assert (tmp_path / "file").read_text() == "mine"
    assert (write_project("empty", "redis", tmp_path) / "pyproject.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--broker", "redsi"], "--broker redsi: it is redis, nats, rabbit or kafka; memory needs nothing"),
        (["--in", "nowhere"], "--in nowhere: there is no such folder"),
    ],
)
def test_options_that_are_wrong(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["new", "shop", *arguments])
    assert (done.exit_code, done.output) == (2, f"eventkit: {said}\n")
