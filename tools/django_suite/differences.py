"""What of Django's tests fails with ours, and why; docs/compatibility.md has the same table."""

_LIST = "changes a list that DummyBackend keeps in memory; here that is the outbox"
_RESULTS = "expects no results, and here there are some"

DOCUMENTED = {
    "DummyBackendTestCase::test_refresh_result": _LIST,
    "DummyBackendTestCase::test_refresh_result_async": _LIST,
    "ImmediateBackendTestCase::test_cannot_get_result": _RESULTS,
    "ImmediateBackendTestCase::test_cannot_refresh_result": _RESULTS,
    "ImmediateBackendTestCase::test_cannot_pass_run_after": "expects no run_after, and here it is",
}
