"""A PostgreSQL server of Debian's package in a temporary directory, on a free loopback port, for the tests."""

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_numbers = itertools.count(1)


class PostgresServer:
    """Starts, stops, and makes empty databases."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda found: int(found.parent.name))
        if not binaries:
            raise RuntimeError("there is no PostgreSQL; install it with: apt-get install postgresql-15")
        self.binaries = binaries[-1]
        self.user = "postgres" if os.getuid() == 0 else None  # the server refuses to run as root
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        if self.user:
            shutil.chown(directory, self.user)
        self._run("initdb", "-A", "trust", "-U", "postgres", "-D", str(self.data), "--no-sync")
        (self.data / "postgresql.auto.conf").write_text("")
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -k {self.directory} -h 127.0.0.1"
        self._run("pg_ctl", "-D", str(self.data), "-o", options, "-l", str(self.directory / "log"), "-w", "start")

    @property
    def pid(self) -> int:
        """The number of its first process."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def new_database(self) -> str:
        name = f"triphase_{next(_numbers)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.binaries / program), *arguments], check=True, user=self.user, cwd=self.directory,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="triphase-postgres-", ignore_cleanup_errors=True) as directory:
        server = PostgresServer(Path(directory))
        try:
            yield server
        finally:
            server.stop("immediate")
