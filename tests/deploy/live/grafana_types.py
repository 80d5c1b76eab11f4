"""The dashboards as TypeScript, to be held against the types that Grafana itself is built with."""

import json

# Types of a panel's options and of its fields' own options.
MODULES = {
    "timeseries": ("timeseries", "TimeSeriesPanelCfg", "FieldConfig"),
    "stat": ("stat", "StatPanelCfg", None),
    "gauge": ("gauge", "GaugePanelCfg", None),
    "bargauge": ("bargauge", "BarGaugePanelCfg", None),
    "heatmap": ("heatmap", "HeatmapPanelCfg", "FieldConfig"),
    "state-timeline": ("statetimeline", "StateTimelinePanelCfg", "FieldConfig"),
    "table": ("table", "TablePanelCfg", "FieldConfig"),
}
HEAD = """\
import type { AnnotationQuery, Dashboard, DashboardLink, Panel, RowPanel } from "@grafana/schema";
// JSON has the value of an enum where TypeScript wants its name.
type Plain<T> = unknown extends T ? T
  : T extends string ? `${T}`
  : T extends number ? number
  : T extends boolean | null | undefined ? T
  : T extends Array<infer U> ? Array<Plain<U>>
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
// What Grafana writes and reads without having it in its types: a panel's links are shorter than a dashboard's, and an
// annotation has what its data source wants.
type Shown = Omit<Plain<Panel>, "links"> & { links: Array<Partial<Plain<DashboardLink>>> };
type Event = Omit<Plain<AnnotationQuery>, "target"> & { target?: Record<string, unknown>; expr?: string; titleFormat?: string; textFormat?: string; tagKeys?: string };
type Board = Omit<Plain<Dashboard>, "panels" | "annotations"> & { panels: Array<Plain<RowPanel> | Shown>; annotations: { list: Event[] } };
"""
CONFIG = {
    "compilerOptions": {
        "strict": True,
        "noEmit": True,
        "skipLibCheck": True,
        "module": "esnext",
        "moduleResolution": "bundler",
        "target": "es2022",
        "types": [],
    },
    "include": ["*.ts"],
}


def source(dashboards):
    """A constant for each dashboard, and two for each panel, whose options the dashboard's type leaves open."""
    kinds = {panel["type"] for dashboard in dashboards.values() for panel in dashboard["panels"]} - {"row"}
    text = [HEAD]
    for kind in sorted(kinds):
        folder, name, _ = MODULES[kind]
        path = f"@grafana/schema/dist/esm/raw/composable/{folder}/panelcfg/x/{name}_types.gen"
        text.append(f'import type * as {folder} from "{path}";')
    for index, dashboard in enumerate(dashboards.values()):
        text.append(f"export const dashboard{index}: Board = {json.dumps(dashboard)};")
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                continue
            folder, _, fields = MODULES[panel["type"]]
            name = f"panel{index}_{panel['id']}"
            text.append(f"export const {name}: Plain<Partial<{folder}.Options>> = {json.dumps(panel['options'])};")
            if fields:
                custom = json.dumps(panel["fieldConfig"]["defaults"]["custom"])
                text.append(f"export const {name}_fields: Plain<Partial<{folder}.{fields}>> = {custom};")
    return "\n".join(text)
