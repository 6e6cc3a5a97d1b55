"""The image and the compose file: what they name exists, and the very command of the compose file serves the page."""

import fnmatch
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.postgres_server import postgres_server

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
# What compose-spec knows of what is used here: a misspelt key would be refused only where docker is.
SERVICE_KEYS = {
    "build", "image", "command", "environment", "secrets", "ports", "depends_on", "restart", "stop_grace_period",
    "read_only", "tmpfs", "cap_drop", "security_opt", "volumes", "healthcheck",
}  # fmt: skip


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.M)


def ignored(path: str) -> bool:
    """As .dockerignore has it: the last line that matches decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            if pattern in ("*", path) or fnmatch.fnmatch(path, pattern):
                verdict = not line.startswith("!")
    return verdict


def test_the_image_installs_extras_that_exist_without_torch() -> None:
    extras = re.search(r'-c constraints\.txt "\.\[([a-z,]+)\]"', DOCKERFILE)
    assert extras and extras[1].split(",") == ["label", "postgres"]
    assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_image_copies_what_is_there_and_not_ignored() -> None:
    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists() and not ignored(path), path
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"} <= set(copied)  # hatchling reads them
    assert ignored("deploy/secrets/key.pem") and ignored(".git") and ignored("runs")


def test_the_image_has_a_user_of_its_own_and_a_python_that_the_package_allows() -> None:
    assert instructions("USER") == ["triphase"]
    assert DOCKERFILE.index("USER triphase") < DOCKERFILE.index("ENTRYPOINT")
    versions = [re.fullmatch(r"python:(3\.\d+)-slim-bookworm.*", line) for line in instructions("FROM")]
    assert all(found and f">={found[1]}" == PROJECT["requires-python"] for found in versions)
    assert instructions("EXPOSE") == ["8400"]


def test_the_programs_of_the_image_are_the_files_that_it_copies() -> None:
    for line in [*instructions("ENTRYPOINT"), *re.findall(r"CMD (\[.+\])", DOCKERFILE)]:
        for word in yaml.safe_load(line):
            if word.startswith("/opt/triphase/share/"):
                assert (ROOT / "deploy" / Path(word).name).is_file()


def test_the_compose_file_uses_known_keys_and_declares_what_it_names() -> None:
    assert set(COMPOSE) == {"name", "services", "volumes", "secrets"}
    for service in COMPOSE["services"].values():
        assert set(service) <= SERVICE_KEYS
        assert set(service["secrets"]) <= set(COMPOSE["secrets"])
        for name, value in service["environment"].items():
            if "PASSWORD" in name:  # by file, never in clear
                assert name.endswith("_FILE") and value.removeprefix("/run/secrets/") in COMPOSE["secrets"]
        for secret in re.findall(r"/run/secrets/(\w+)", " ".join(service.get("command", []))):
            assert secret in service["secrets"]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]
    label, db = COMPOSE["services"]["label"], COMPOSE["services"]["db"]
    assert "ports" not in db  # only the label server reaches it
    assert label["depends_on"] == {"db": {"condition": "service_healthy"}} and db["healthcheck"]["test"][0] == "CMD"
    assert label["ports"][0].endswith(":8400") and "--port=8400" in label["command"]
    assert f"://{db['environment']['POSTGRES_USER']}@db/{db['environment']['POSTGRES_DB']}" in label["command"][2]
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().split()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key and a password, named like the secrets of the compose file."""
    where = tmp_path_factory.mktemp("secrets")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=label.example.org", "-keyout", where / "key", "-out", where / "certificate"],
        check=True, capture_output=True,
    )  # fmt: skip
    (where / "database_password").write_text("correct horse\n")
    return where


def arguments(store: str, secrets: Path, port: int) -> list[str]:
    """The command of the compose file, with the store, the secrets and the port of this machine."""
    words = [word.replace("/run/secrets", str(secrets)) for word in COMPOSE["services"]["label"]["command"]]
    words = [re.sub(r"\$\{TRIPHASE_ADDRESS:\?.*\}", "https://label.example.org", word) for word in words]
    words[2], words[words.index("--port=8400")] = store, f"--port={port}"
    # An SQLite file takes one process; the command as it stands is for PostgreSQL.
    return words if store.startswith("postgresql") else [word for word in words if not word.startswith("--workers=")]


@contextmanager
def served(words: list[str], secrets: Path, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The entry point of the image with these arguments."""
    programs = output.parent / "bin"
    programs.mkdir()
    (programs / "triphase").write_text(f'#!/bin/sh\nexec {sys.executable} -m triphase.cli.main "$@"\n')
    (programs / "triphase").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PGPASSWORD_FILE": str(secrets / "database_password"),
        "PYTHONUNBUFFERED": "1",
    }
    with output.open("wb") as log:
        process = subprocess.Popen(
            ["sh", ROOT / "deploy/entrypoint.sh", *words], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def health(port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "deploy/health.py"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "TRIPHASE_HEALTH": f"https://0.0.0.0:{port}/sign-in"},
    )  # fmt: skip


def check_that_it_serves(store: str, secrets: Path, tmp_path: Path, more: tuple[str, ...] = ()) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    assert health(port).returncode == 1
    output = tmp_path / "log"
    with served([*arguments(store, secrets, port), *more], secrets, output) as process:
        ends = time.monotonic() + 120
        while (state := health(port)).returncode and time.monotonic() < ends:
            assert process.poll() is None, output.read_text()
            time.sleep(0.2)
        assert state.returncode == 0, state.stdout
        given = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        assert b"PGPASSWORD=correct horse" in given  # read from the file, without the end of its line
        assert b"correct horse" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    text = output.read_text()
    assert "https://label.example.org/invitation/" in text and "correct horse" not in text


def test_the_command_of_the_compose_file_serves_the_page(secrets: Path, tmp_path: Path) -> None:
    check_that_it_serves(str(tmp_path / "labels.sqlite"), secrets, tmp_path, ("--create",))


@pytest.mark.postgres
def test_the_command_of_the_compose_file_serves_the_page_from_postgresql(secrets: Path, tmp_path: Path) -> None:
    with postgres_server() as server:
        check_that_it_serves(server.new_database(), secrets, tmp_path)


def test_a_password_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", ROOT / "deploy/entrypoint.sh", "--help"], capture_output=True, text=True,
        env={**os.environ, "PGPASSWORD_FILE": str(tmp_path / "none")},
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: PGPASSWORD_FILE=") and not done.stdout
