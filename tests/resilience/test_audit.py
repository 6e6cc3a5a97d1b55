"""A vulnerability fails `make check`; an unreachable database is reported and fails nothing."""

from tests.audit import judge, judge_failure

SOUND = {"name": "a", "version": "1", "vulns": []}
FLAWED = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


def test_a_known_vulnerability_fails() -> None:
    code, lines = judge({"dependencies": [SOUND, FLAWED, UNKNOWN]})
    assert code == 1 and lines[0] == "vulnerable: b 2: PYSEC-1 (mended in 3)" and "1 of 3" in lines[1]


def test_none_passes_and_says_how_many_were_looked_at() -> None:
    assert judge({"dependencies": [SOUND]}) == (0, ["1 packages audited, none with a known vulnerability"])


def test_what_was_not_audited_is_said() -> None:
    for code, lines in (
        judge({"dependencies": [UNKNOWN, UNKNOWN]}),
        judge_failure("Traceback\nrequests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.osv.dev')"),
    ):
        assert code == 0 and lines[0].startswith("NOTICE: nothing was audited")


def test_another_failure_of_the_tool_fails() -> None:
    assert judge_failure("usage: pip-audit\nunrecognized arguments: --x")[0] == 1
