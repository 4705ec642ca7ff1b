"""The dashboard around its rows, as the JSON that Grafana imports."""

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import VariableOption, VariableRefresh

from grafana.panels import SOURCE
from grafana.rows import ROWS


def as_json() -> str:
    """Return the dashboard as Grafana imports it."""
    board = (
        Dashboard("Outbox")
        .uid("outbox")
        .description(
            "The transactional outbox for Celery; one job in Prometheus is one outbox, or many."
        )
        .tags(["outbox", "celery"])
        .refresh("10s")
        .time("now-1h", "now")
        .with_variable(DatasourceVariable("datasource").type("prometheus").label("Prometheus"))
        .with_variable(
            QueryVariable("job")
            .label("Relays")
            .datasource(SOURCE)
            .query("label_values(outbox_build_info, job)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
        .with_variable(
            QueryVariable("outbox")
            .label("Outbox")
            .datasource(SOURCE)
            .query('label_values(outbox_database_up{job="$job"}, outbox)')
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(text="All", value="$__all", selected=True))
        )
    )
    for title, panels in ROWS:
        board = board.with_row(Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    built = board.build()
    for number_, panel_ in enumerate(built.panels or [], start=1):
        panel_.id_val = number_  # the SDK leaves them out; Grafana wants them, all different
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"
