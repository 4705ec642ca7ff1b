"""The fixtures live in topical files; every test folder may use all of them."""

pytest_plugins = [
    "tests.fixtures.broker",
    "tests.fixtures.coverage",
    "tests.fixtures.django",
    "tests.fixtures.frozen",
    "tests.fixtures.otlp",
    "tests.fixtures.pgbouncer",
    "tests.fixtures.postgres",
    "tests.fixtures.programs",
    "tests.fixtures.prometheus",
    "tests.fixtures.reports",
    "tests.fixtures.tls",
    "tests.fixtures.valkey",
]
