#!/usr/bin/env python3
"""dashboard.py [--check]: writes the Grafana dashboard from the panels below, or says whether it is what they make.

An expression names metrics without the variables of the dashboard: every metric gets them, so that one pair is shown. Panels are placed from left to
right, in lines of 24 columns. The id of a panel stays when others come and go, as links lead to it.
"""

import json
import pathlib
import re
import sys

FILE = pathlib.Path(__file__).parent / "roles/pgpair_probe/files/grafana/pgpair.json"
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
WHICH = 'job=~"$job", instance=~"$instance"'
METRIC = re.compile(r"\b((?:pg|pgpair|process)_\w+)(?:\{([^}]*)\})?")
COLUMNS = 24

GREEN = [("green", None)]
VERDICTS = {
    "ok": ("all well", "green"),
    "degraded": ("degraded", "orange"),
    "unknown": ("unknown", "#6e7681"),
    "diverged": ("diverged", "red"),
    "no_primary": ("no primary", "red"),
    "split_brain": ("split brain", "dark-red"),
}
GUARD = {
    "watching": ("watching", "green"),
    "working": ("working", "orange"),
    "paused": ("paused", "orange"),
    "blocked": ("blocked", "red"),
    "waiting": ("waiting", "orange"),
}


def selected(expression: str) -> str:
    """The expression about the pair that is chosen."""
    return METRIC.sub(lambda it: f"{it[1]}{{{', '.join(filter(None, [it[2], WHICH]))}}}", expression)


def numbered(metric: str, label: str, words: dict) -> str:
    """The place of the word, counted from 1, for which a metric is 1."""
    return " or ".join(f'{metric}{{{label}="{word}"}} * {place} > 0' for place, word in enumerate(words, 1))


def mapping(texts: dict) -> list:
    """What is shown instead of numbers: text and color."""
    options = {str(value): {"text": text, "color": color, "index": index} for index, (value, (text, color)) in enumerate(texts.items())}
    return [{"type": "value", "options": options}]


def places(words: dict) -> dict:
    """Texts of the places that `numbered` gives."""
    return dict(enumerate(words.values(), 1))


def panel(kind: str, number: int, size: tuple, title: str, about: str, targets: list, options: dict, steps=GREEN, texts=None, overrides=(), **field) -> dict:
    """A panel. `targets` are expressions with their legends; `field` is what Grafana calls the field's defaults."""
    width, height = size
    shown = {
        "mappings": mapping(texts) if texts else [],
        "thresholds": {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]},
    }
    return {
        "id": number,
        "type": kind,
        "title": title,
        "description": about,
        "datasource": PROMETHEUS,
        "gridPos": {"w": width, "h": height},
        "targets": [target(place, *it) for place, it in enumerate(targets)],
        "fieldConfig": {"defaults": shown | field, "overrides": list(overrides)},
        "options": options,
    }


def target(place: int, expression: str, legend: str, how: str = "range") -> dict:
    """A query: over the chosen time, at its end (`instant`), or at its end as rows (`table`)."""
    query = {
        "datasource": PROMETHEUS,
        "refId": "ABCDE"[place],
        "expr": selected(expression),
        "legendFormat": legend,
        "editorMode": "code",
        "range": how == "range",
        "instant": how != "range",
    }
    return query | ({"format": "table"} if how == "table" else {})


def override(by: str, whose: str, **properties) -> dict:
    """Properties of the columns or lines that are named."""
    return {"matcher": {"id": by, "options": whose}, "properties": [{"id": name.replace("_", "."), "value": value} for name, value in properties.items()]}


def row(number: int, title: str) -> dict:
    """A heading."""
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": {"w": COLUMNS, "h": 1}, "panels": []}


def stat(number: int, width: int, title: str, about: str, expression: str, legend: str, height=4, how="range", color="background", text="value", **field) -> dict:
    """One figure."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": color,
        "graphMode": "none",
        "textMode": text,
        "justifyMode": "center",
        "orientation": "auto",
    }
    return panel("stat", number, (width, height), title, about, [(expression, legend, how)], options, **field)


def state(number: int, height: int, title: str, about: str, expression: str, legend: str, texts: dict) -> dict:
    """A band that changes its color."""
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    look = {"lineWidth": 0, "fillOpacity": 80, "spanNulls": False}
    return panel("state-timeline", number, (COLUMNS, height), title, about, [(expression, legend)], options, texts=texts, custom=look)


def lines(number: int, title: str, about: str, *targets: tuple, size=(12, 8), line="linear", fill=8, scale=None, overrides=(), **field) -> dict:
    """Lines over time."""
    options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}, "tooltip": {"mode": "multi", "sort": "desc"}}
    look = {"drawStyle": "line", "lineInterpolation": line, "lineWidth": 1, "fillOpacity": fill}
    look |= {"showPoints": "never", "spanNulls": False, "axisSoftMin": 0}
    look |= {"scaleDistribution": scale} if scale else {}
    return panel("timeseries", number, size, title, about, list(targets), options, overrides=overrides, custom=look, **field)


def nodes(number: int) -> dict:
    """The table of nodes: a column a query, joined by the node."""
    columns = [
        ("Reason", "max by (node, reason) (pgpair_node_reason == 1)"),
        ("Timeline", "max by (node) (pgpair_timeline)"),
        ("WAL receiver", "max by (node) (pgpair_wal_receiver_up)"),
        ("Last answer", "max by (node) (pgpair_observation_age_seconds)"),
        ("In this state for", "time() - max by (node) (pgpair_last_transition_timestamp_seconds)"),
    ]
    values = [f"Value #{letter}" for letter in "BCDE"]
    names = ["node", "reason", *values]
    times = [f"Time {place}" for place in range(1, len(columns) + 1)]
    organize = {
        "excludeByName": {name: True for name in [*times, "Time", "Value #A"]},
        "renameByName": dict(zip(names, ["Node", *(name for name, _ in columns)])),
        "indexByName": {name: index for index, name in enumerate(names)},
    }
    receiver = mapping({0: ("down", "red"), 1: ("streaming", "green")})
    table = panel(
        "table",
        number,
        (12, 5),
        "Nodes",
        "Why each node is as it is, in pgpair's words. /ui says what a word means and what to look at.",
        [(expression, "", "table") for _, expression in columns],
        {"showHeader": True, "cellHeight": "sm", "footer": {"show": False}},
        overrides=[override("byName", "WAL receiver", mappings=receiver), override("byRegexp", "Last answer|In this state for", unit="s", decimals=1)],
    )
    join = {"byField": "node", "mode": "outer"}
    return table | {"transformations": [{"id": "joinByField", "options": join}, {"id": "organize", "options": organize}]}


def now() -> list:
    """The first part: what is so now."""
    verdict = f"max by (job, instance) ({numbered('pgpair_pair_verdict', 'verdict', VERDICTS)})"
    guard = f"max({numbered('pgpair_guard_state', 'state', GUARD)} or pgpair_guard_up == 0)"
    bytes_behind = [*GREEN, ("orange", 128 << 20), ("red", 1 << 30)]
    roles = (
        'max by (node) (pgpair_node_role{role="primary"} > 0) or max by (node) (pgpair_node_role{role="standby"} * 2 > 0)',
        "{{node}}",
        {1: ("primary", "blue"), 2: ("standby", "#8ab8ff")},
    )
    return [
        row(1, "Now"),
        stat(2, 6, "Verdict", "The pair as pgpair sees it. Grey and no figure: nothing is scraped.", verdict, "verdict", texts=places(VERDICTS)),
        stat(3, 3, "/ready", "What the application's readiness check gets.", "min(pgpair_ready)", "ready", texts={0: ("503", "red"), 1: ("200", "green")}),
        stat(
            4, 3, "Writable primaries", "One is right. Two are a split brain.", "max(pgpair_writable_primaries)", "primaries",
            steps=[("red", None), ("green", 1), ("dark-red", 2)],
        ),
        stat(
            27, 3, "Guard", "Whether a dead primary would be replaced. Empty where there never was a guard.", guard, "guard",
            texts={0: ("down", "red")} | places(GUARD),
        ),
        stat(
            5, 3, "Lag", "The standby that is furthest behind, in bytes that it has not replayed. No figure: unknown, which is not zero.",
            'max(pgpair_replication_lag_bytes{mode="apply"})', "lag", steps=bytes_behind, unit="bytes", noValue="unknown",
        ),
        stat(
            6, 3, "Lag in time", "", "max(pg_replication_lag_seconds)", "lag",
            steps=[*GREEN, ("orange", 60), ("red", 600)], unit="s", noValue="unknown",
        ),
        stat(7, 3, "pgpair up for", "", "time() - max(process_start_time_seconds)", "up", color="none", unit="dtdurations"),
        nodes(8),
        stat(
            9, 12, "Time without an answer", "How long each node was out in the chosen time.",
            "sum by (node) (increase(pgpair_outage_seconds_total[$__range]))", "{{node}}", height=5, how="instant", text="value_and_name",
            steps=[*GREEN, ("orange", 1), ("red", 60)], unit="s", decimals=0,
        ),
        row(10, "The pair"),
        state(11, 3, "Verdict", "", verdict, "pair", places(VERDICTS)),
        state(12, 4, "Roles", "A gap: the role was unknown.", *roles),
    ]


def pair() -> list:
    """The second part: how the pair was."""
    return [
        lines(
            13, "Lag in bytes", "Not replayed (apply) and not received (write) of what the primary has written. A gap: unknown.",
            ('max by (node) (pgpair_replication_lag_bytes{mode="apply"})', "{{node}} apply"),
            ('max by (node) (pgpair_replication_lag_bytes{mode="write"})', "{{node}} write"),
            unit="bytes",
        ),
        lines(
            14, "Lag in seconds", "Age of what the standby shows its readers; 0 when it has replayed everything.",
            ("max by (node) (pg_replication_lag_seconds)", "{{node}}"),
            unit="s",
        ),
        lines(
            15, "WAL held back by slots", "Beyond max_slot_wal_keep_size a slot is lost and its standby needs a new base backup.",
            ("max by (node, slot) (pgpair_slot_retained_bytes)", "{{slot}} on {{node}}"),
            unit="bytes",
        ),
        lines(
            16, "Timeline", "One step up for each promotion; the nodes of a whole pair agree.",
            ("max by (node) (pgpair_timeline)", "{{node}}"),
            line="stepAfter", fill=0, decimals=0,
        ),
    ]


def probe() -> list:
    """The third part: pgpair itself."""
    small = (8, 6)
    most = "most descriptors"
    dashed = override("byName", most, custom_lineStyle={"fill": "dash", "dash": [6, 6]}, custom_fillOpacity=0)
    rate = "[$__rate_interval]"
    observation = f"sum by (node, le) (rate(pgpair_observation_seconds_bucket{rate}))"
    return [
        row(17, "The probe"),
        lines(
            18, "Observation of a node", "How long pgpair's round trip to PostgreSQL takes: half of them, and 99 of 100, within.",
            (f"histogram_quantile(0.5, {observation})", "{{node}} half"),
            (f"histogram_quantile(0.99, {observation})", "{{node}} 99 %"),
            unit="s",
        ),
        lines(19, "Age of the last answer", "A steep line: the node is silent.", ("max by (node) (pgpair_observation_age_seconds)", "{{node}}"), unit="s"),
        lines(
            20, "Failed observations", "By reason.",
            (f"sum by (node, reason) (rate(pgpair_observation_failures_total{rate})) > 0", "{{node}} {{reason}}"),
            (f"sum by (node) (rate(pgpair_watchers_abandoned_total{rate})) > 0", "{{node}} abandoned"),
            unit="cps",
        ),
        lines(
            21, "Requests", "By path and answer.",
            (f"sum by (path, code) (rate(pgpair_http_requests_total{rate})) > 0", "{{path}} {{code}}"),
            unit="reqps",
        ),
        lines(
            22, "Answers within", "99 of 100 answers take no longer; the deadline is 900 ms unless you changed it.",
            (f"histogram_quantile(0.99, sum by (path, le) (rate(pgpair_http_request_seconds_bucket{rate})))", "{{path}}"),
            unit="s",
        ),
        lines(
            23, "Connections", "Open now, and closed by pgpair each second, by reason.",
            ("sum(pgpair_http_connections)", "open"),
            (f"sum by (reason) (rate(pgpair_http_connections_closed_total{rate})) > 0", "closed: {{reason}}"),
            unit="short",
        ),
        lines(24, "Memory", "", ("max(process_resident_memory_bytes)", "resident"), size=small, unit="bytes"),
        lines(25, "Processor", "", (f"sum(rate(process_cpu_seconds_total{rate}))", "of one core"), size=small, unit="percentunit"),
        lines(
            26, "Descriptors and threads", "",
            ("max(process_open_fds)", "descriptors"), ("max(process_max_fds)", most), ("max(process_threads)", "threads"),
            size=small, scale={"type": "log", "log": 10}, overrides=[dashed], unit="short",
        ),
    ]


def placed(panels: list) -> list:
    """Gives every panel its place: beside the one before, or in the next line."""
    x = y = height = 0
    for it in panels:
        size = it["gridPos"]
        if x + size["w"] > COLUMNS:
            x, y = 0, y + height
        it["gridPos"] = {"x": x, "y": y} | size
        x, height = x + size["w"], size["h"]
    return panels


def variable(name: str, label: str, query: str) -> dict:
    """What is chosen above the panels: a label's value."""
    look = {"refresh": 2, "sort": 1, "multi": False, "includeAll": False, "hide": 0, "regex": "", "options": [], "current": {}, "skipUrlSync": False}
    asked = {"datasource": PROMETHEUS, "definition": query, "query": {"query": query, "refId": name}}
    return {"name": name, "label": label, "type": "query"} | asked | look


def dashboard() -> dict:
    """All of it."""
    source = variable("datasource", "Data source", "prometheus") | {"type": "datasource", "query": "prometheus", "refresh": 1}
    for name in ["datasource", "definition", "sort"]:
        del source[name]
    built_in = {"builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "hide": True, "iconColor": "rgba(0, 211, 255, 1)"}
    started = {"datasource": PROMETHEUS, "enable": True, "hide": False, "iconColor": "orange", "name": "pgpair started"}
    started |= {"expr": selected("changes(process_start_time_seconds[1m]) > 0"), "step": "15s", "titleFormat": "pgpair started"}
    return {
        "title": "pgpair",
        "uid": "pgpair",
        "description": "A PostgreSQL pair as its pgpair sees it: verdict, roles, lag, slots, and the probe itself.",
        "tags": ["postgresql", "pgpair"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "timezone": "",
        "weekStart": "",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "id": None,
        "links": [],
        "annotations": {"list": [built_in | {"name": "Annotations & Alerts", "type": "dashboard"}, started]},
        "templating": {
            "list": [
                source,
                variable("job", "Job", "label_values(pgpair_build_info, job)"),
                variable("instance", "Pair", 'label_values(pgpair_build_info{job=~"$job"}, instance)'),
            ]
        },
        "panels": placed(now() + pair() + probe()),
    }


def main() -> None:
    """Writes the file, or compares it."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if sys.argv[1:] != ["--check"]:
        FILE.write_text(text)
    elif FILE.read_text() != text:
        sys.exit(f"{FILE.name} is not what ansible/dashboard.py makes. This writes it:\n    python3 ansible/dashboard.py")


main()
