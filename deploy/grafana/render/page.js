"use strict";
// Lays a dashboard out as Grafana does and says in window.outcome how that went.
const CELL = 30,
  GAP = 8;

function place(box, at, width) {
  const column = (width + GAP) / 24;
  Object.assign(box.style, {
    left: `${at.x * column}px`,
    top: `${at.y * (CELL + GAP)}px`,
    width: `${at.w * column - GAP}px`,
    height: `${at.h * (CELL + GAP) - GAP}px`,
  });
}

function frame(dashboard, settings) {
  const crumbs = document.getElementById("crumbs");
  const [folder, title] = dashboard.title.split(" / ");
  crumbs.textContent = "Dashboards";
  element("span", crumbs, "", "›");
  crumbs.append(folder);
  element("span", crumbs, "", "›");
  crumbs.append(title);
  const range = document.getElementById("range");
  element("div", range, "pill", `Last ${Math.round((settings.end - settings.start) / 60)} minutes`);
  element("div", range, "pill", `↻ ${dashboard.refresh}`);
  const nav = document.getElementById("variables");
  for (const variable of dashboard.templating.list) {
    const one = element("div", nav, "variable");
    element("b", one, "", variable.label);
    element(
      "i",
      one,
      "",
      variable.type === "datasource" ? "Prometheus" : variable.type === "custom" ? variable.current.text : "All",
    );
  }
  for (const link of dashboard.links)
    element("div", nav, "pill link", link.title === "tokenglass" ? "Other dashboards ▾" : `${link.title} ↗`);
}

async function show(panel, grid, settings) {
  if (panel.type === "row") {
    const row = element("div", grid, "row", panel.title);
    place(row, panel.gridPos, grid.clientWidth);
    return null;
  }
  const section = element("section", grid);
  place(section, panel.gridPos, grid.clientWidth);
  element("h2", section, "", panel.title);
  const body = element("div", section, "body");
  const data = await load(panel, settings, Math.round(body.clientWidth / 3));
  if (!data.series.length) {
    element("div", body, "nothing", "No data");
    return { title: panel.title, silent: data.silent, empty: true };
  }
  DRAW[panel.type](panel, body, section, data);
  return { title: panel.title, silent: data.silent, empty: false };
}

async function main() {
  const [dashboard, settings] = await Promise.all(
    ["dashboard.json", "settings.json"].map(async (name) => (await fetch(name)).json()),
  );
  frame(dashboard, settings);
  const grid = document.getElementById("grid");
  const bottom = Math.max(...dashboard.panels.map((panel) => panel.gridPos.y + panel.gridPos.h));
  grid.style.height = `${bottom * (CELL + GAP)}px`;
  const shown = [];
  // One after the other: it is a picture, and Prometheus is someone's.
  for (const panel of dashboard.panels) shown.push(await show(panel, grid, settings));
  const panels = shown.filter(Boolean);
  await document.fonts.ready;
  window.outcome = {
    panels: panels.length,
    empty: panels.filter((p) => p.empty).map((p) => p.title),
    silent: panels.filter((p) => p.silent.length).map((p) => `${p.title}: ${p.silent}`),
  };
}

main().catch((error) => {
  window.outcome = { error: String(error.stack ?? error) };
});
