"""Grafana's dashboard model, as little of it as make_dashboards.py needs. Queries are pairs of PromQL and legend."""

SELECT = 'job=~"$job", run=~"$run"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 37  # Grafana 9
COLUMNS = 24


def _targets(queries, **more):
    return [{"refId": chr(ord("A") + i), "datasource": SOURCE, "editorMode": "code", "expr": expr, "legendFormat": legend,
             **({"range": True} | more)} for i, (expr, legend) in enumerate(queries)]


def _panel(kind, title, description, targets, options, defaults):
    return {"type": kind, "title": title, "description": description, "datasource": SOURCE, "targets": targets,
            "options": options, "fieldConfig": {"defaults": defaults, "overrides": []}}


def _thresholds(warn=None, bad=None):
    steps = [{"color": "green", "value": None}]
    if warn is not None:
        steps += [{"color": "orange", "value": warn}, {"color": "red", "value": bad}]
    return {"mode": "absolute", "steps": steps}


def stat(title, description, queries, unit, warn=None, bad=None):
    """The last value, large; orange from `warn` on, red from `bad` on."""
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value",
               "graphMode": "area", "textMode": "auto", "orientation": "auto", "justifyMode": "auto"}
    return _panel("stat", title, description, _targets(queries), options, {"unit": unit, "thresholds": _thresholds(warn, bad)})


def bars(title, description, queries, unit):
    """The last values, a bar each."""
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "displayMode": "basic",
               "orientation": "horizontal", "showUnfilled": True}
    return _panel("bargauge", title, description, _targets(queries), options,
                  {"unit": unit, "min": 0, "thresholds": _thresholds()})


def lines(title, description, queries, unit, stacked=False, top=None):
    """Curves over time; `top`: where the axis ends, that then begins at 0."""
    custom = {"drawStyle": "line", "lineWidth": 1, "showPoints": "never", "fillOpacity": 30 if stacked else 0,
              "stacking": {"mode": "normal" if stacked else "none", "group": "A"}}
    defaults = {"unit": unit, "custom": custom}
    if top is not None:
        defaults |= {"min": 0, "max": top}
    options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return _panel("timeseries", title, description, _targets(queries), options, defaults)


def heat_map(title, description, expr, rows):
    """A row for each value of the label `rows`, whose series are the cells: nothing is put into buckets."""
    options = {"calculate": False, "cellGap": 0, "color": {"mode": "scheme", "scheme": "Inferno", "steps": 64, "min": 0, "max": 2,
                                                            "reverse": False, "exponent": 0.5, "fill": "dark-orange", "scale": "exponential"},
               "yAxis": {"axisPlacement": "left", "reverse": False, "axisLabel": rows},
               "rowsFrame": {"layout": "auto", "value": "times an even share"},
               "showValue": "never", "tooltip": {"show": True, "yHistogram": False}, "legend": {"show": True},
               "cellValues": {"unit": "none", "decimals": 2}, "filterValues": {"le": -1}, "exemplars": {"color": "red"}}
    return _panel("heatmap", title, description, _targets([(expr, f"{{{{{rows}}}}}")], format="time_series"), options,
                  {"custom": {"scaleDistribution": {"type": "linear"}}})


def table(title, description, queries):
    """The labels and last values of all queries, joined by the labels; a value's heading is its query's legend."""
    panel = _panel("table", title, description, _targets(queries, format="table", instant=True, range=False),
                   {"showHeader": True}, {"decimals": 2})
    names = {f"Value #{chr(ord('A') + i)}": legend for i, (_, legend) in enumerate(queries)} if len(queries) > 1 else {}
    panel["transformations"] = [{"id": "merge", "options": {}},
                                {"id": "organize", "options": {"excludeByName": {"Time": True, "__name__": True, "Value": True},
                                                               "indexByName": {}, "renameByName": names}}]
    return panel


class Dashboard:
    """Panels in rows, set from left to right."""

    def __init__(self, name, title, description, many=False):
        """`many`: several runs can be shown at once."""
        self.name = name
        self._title, self._description = title, description
        self._panels = []
        self._x = self._y = self._height = 0
        self._variables = [_source_variable(), _variable("job", "Job", "label_values(cartesian_ranks, job)", True),
                           _variable("run", "Run", 'label_values(cartesian_ranks{job=~"$job"}, run)', many)]

    def choose(self, name, label, query):
        """A variable of which several values can be chosen, all at first."""
        self._variables.append(_variable(name, label, query, True))

    def row(self, title, repeat=None):
        """Starts a row; with `repeat` there is one for each value of that variable."""
        self._wrap()
        row = {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": self._y}}
        if repeat:
            row["repeat"] = repeat
        self._append(row)
        self._y += 1

    def add(self, width, panel, height=8):
        if self._x + width > COLUMNS:
            self._wrap()
        self._append(panel | {"gridPos": {"h": height, "w": width, "x": self._x, "y": self._y}})
        self._x += width
        self._height = max(self._height, height)

    def json(self):
        links = [{"type": "dashboards", "title": "Cartesian", "tags": ["cartesian"], "asDropdown": False, "keepTime": True,
                  "includeVars": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}]
        return {"uid": f"cartesian-{self.name}", "title": self._title, "description": self._description, "tags": ["cartesian"],
                "schemaVersion": SCHEMA_VERSION, "version": 1, "id": None, "editable": True, "graphTooltip": 1, "refresh": "5s", "style": "dark",
                "timezone": "browser", "time": {"from": "now-1h", "to": "now"}, "links": links, "annotations": {"list": []},
                "templating": {"list": self._variables}, "panels": self._panels}

    def _append(self, panel):
        self._panels.append({"id": len(self._panels) + 1} | panel)

    def _wrap(self):
        self._x, self._y, self._height = 0, self._y + self._height, 0


def _source_variable():
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0,
            "includeAll": False, "multi": False, "options": [], "regex": "", "skipUrlSync": False, "current": {}}


def _variable(name, label, query, many):
    variable = {"name": name, "label": label, "type": "query", "datasource": SOURCE, "definition": query,
                "query": {"query": query, "refId": f"variable-{name}"}, "refresh": 2, "sort": 3, "hide": 0, "regex": "", "options": [],
                "includeAll": many, "multi": many, "skipUrlSync": False, "current": {}}
    if many:
        # Also what has no such label, which a job without a discovery file may lack.
        variable |= {"allValue": ".*", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}
    return variable
