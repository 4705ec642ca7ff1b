"""The two kinds of panel on the dashboard, so that all of a kind look and behave alike.

Every query asks the data source that `datasource` names, about the outboxes that `job` and `outbox`
name.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    MatcherConfig,
    Threshold,
    ThresholdsMode,
)

Panel = stat.Panel | timeseries.Panel

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
#: Of the outboxes that are chosen, one or many.
SERIES: Final = '{job="$job", outbox=~"$outbox"}'
RATE: Final = f"{SERIES}[$__rate_interval]"
#: Of the process, whatever it serves.
JOB: Final = '{job="$job"}'
_UNNAMED_AT_NOUGHT: Final = (
    MatcherConfig(id_val="byValue", options={"reducer": "max", "op": "lte", "value": 0}),
    [
        DynamicConfigValue(
            id_val="custom.hideFrom", value={"legend": True, "tooltip": True, "viz": False}
        )
    ],
)
YES_NO: Final = "bool_yes_no"
#: Grid cells, of 24 in a row.
HALF, THIRD, SIXTH = 12, 8, 4
CURVES_HEIGHT: Final = 7
#: Below five, Grafana leaves out the curve below a number.
NUMBER_HEIGHT: Final = 5


def number(
    title: str,
    description: str,
    expression: str,
    unit: str,
    limits: Mapping[str, float],
    *,
    below: str = "green",
) -> stat.Panel:
    """One number, coloured by the limits from which on it has another colour than `below`."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(SIXTH)
        .height(NUMBER_HEIGHT)
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(below, limits))
        .with_target(_query(expression, title, 0))
    )


def curves(
    title: str,
    description: str,
    queries: Sequence[tuple[str, str]],
    unit: str,
    width: int = HALF,
    *,
    most: float | None = None,
    every: str | None = None,
    mostly_nought: bool = False,
) -> timeseries.Panel:
    """Curves over time from nought up: queries, each with its legend; `most` fixes the scale.

    `every` is how often the relay counts, where Prometheus asks more often: rates are taken over
    four times that. Where many curves are `mostly_nought`, the legend leaves those out that are.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(CURVES_HEIGHT)
        .min(0)
        .fill_opacity(10)
        .line_width(1)
        .show_points(options.VisibilityMode.NEVER)
        .line_interpolation(
            options.LineInterpolation.LINEAR
            if most is None
            else options.LineInterpolation.STEP_AFTER
        )
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
    )
    if most is not None:
        panel = panel.max(most)
    if unit == YES_NO:
        panel = panel.decimals(0)  # nothing is between
    if mostly_nought:
        panel = panel.with_override(*_UNNAMED_AT_NOUGHT)
    for place, (expression, legend) in enumerate(queries):
        query = _query(expression, legend, place)
        panel = panel.with_target(query.interval(every) if every else query)
    return panel


def quantiles(histogram: str) -> list[tuple[str, str]]:
    """The median and what one in twenty and one in a hundred exceeds."""
    rate = f"sum by (le) (rate({histogram}_bucket{SERIES}[$__rate_interval]))"
    return [(f"histogram_quantile({q}, {rate})", f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]


def _query(expression: str, legend: str, place: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(expression)
        .legend_format(legend)
        .ref_id(chr(ord("A") + place))
        .datasource(SOURCE)
    )


def _thresholds(below: str, limits: Mapping[str, float]) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color=below)]
    steps += [Threshold(value=value, color=color) for color, value in limits.items()]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
