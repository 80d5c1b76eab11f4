"use strict";
// From a panel to the series that it shows: variables, Prometheus, legends, overrides.
const NAMED = {
  green: "#73bf69",
  yellow: "#f2cc0c",
  red: "#f2495c",
  blue: "#5794f2",
  purple: "#b877d9",
  orange: "#ff9830",
  text: "#ccccdc",
};
const PALETTE = [
  "#73bf69",
  "#f2cc0c",
  "#8ab8ff",
  "#ff780a",
  "#f2495c",
  "#5794f2",
  "#b877d9",
  "#705da0",
  "#37872d",
  "#fade2a",
  "#447ebc",
  "#c15c17",
];

const shade = (name) => NAMED[name] ?? name;

function expand(text, values) {
  return text.replace(/\$\{?([A-Za-z_]\w*)\}?/g, (all, name) => (name in values ? values[name] : all));
}

async function api(path, parameters) {
  const answer = await fetch(`api/v1/${path}`, { method: "POST", body: new URLSearchParams(parameters) });
  const body = await answer.json();
  if (body.status !== "success") throw new Error(`${body.error}: ${parameters.query}`);
  return body.data.result;
}

// How Grafana chooses them: a point a pixel or so, never finer than the scrapes; four scrapes for a rate.
function steps(settings, pixels) {
  const span = settings.end - settings.start;
  const step = Math.max(settings.scrape, Math.ceil(span / Math.max(pixels, 50)));
  return { step, rate: Math.max(step + settings.scrape, 4 * settings.scrape) };
}

function named(metric, target, values) {
  if (target.legendFormat === "__auto") return Object.values(metric).join(" ") || target.expr;
  return expand(target.legendFormat, values)
    .replace(/\{\{(\w+)\}\}/g, (_, label) => metric[label] ?? "")
    .trim();
}

function configured(name, panel, index) {
  const { defaults, overrides } = panel.fieldConfig;
  const config = structuredClone({ ...defaults, custom: defaults.custom ?? {} });
  for (const { matcher, properties } of overrides) {
    const hit =
      matcher.id === "byName" ? matcher.options === name : new RegExp(matcher.options.slice(1, -1)).test(name);
    for (const { id, value } of hit ? properties : []) {
      if (id.startsWith("custom.")) config.custom[id.slice(7)] = value;
      else if (value === null) delete config[id];
      else config[id] = value;
    }
  }
  config.shade = config.color.mode === "fixed" ? shade(config.color.fixedColor) : PALETTE[index % PALETTE.length];
  return config;
}

function stepOf(value, thresholds) {
  let colour = thresholds.steps[0].color;
  for (const step of thresholds.steps) if (step.value !== null && value >= step.value) colour = step.color;
  return shade(colour);
}

function shadeOf(value, config) {
  const hit = mapped(value, config);
  return hit?.color ? shade(hit.color) : stepOf(value, config.thresholds);
}

// Every series has a value, or null, for each of the same times.
async function load(panel, settings, pixels) {
  const { step, rate } = steps(settings, panel.type === "heatmap" ? 80 : pixels);
  const values = {
    ...settings.values,
    __interval: `${step}s`,
    __rate_interval: `${rate}s`,
    __range: `${settings.end - settings.start}s`,
  };
  const start = Math.ceil(settings.start / step) * step;
  const times = [];
  for (let at = start; at <= settings.end; at += step) times.push(at);
  const answers = await Promise.all(
    panel.targets.map((target) => {
      const query = expand(target.expr, values);
      return target.instant
        ? api("query", { query, time: settings.end })
        : api("query_range", { query, start, end: times.at(-1), step });
    }),
  );
  const series = [];
  const silent = [];
  answers.forEach((result, which) => {
    const target = panel.targets[which];
    let seen = false;
    for (const { metric, values: points, value } of result) {
      const at = new Map((points ?? [value]).map(([time, text]) => [Math.round(time), Number(text)]));
      const numbers = target.instant
        ? [...at.values()]
        : times.map((time) => (Number.isFinite(at.get(time)) ? at.get(time) : null));
      if (!numbers.some(Number.isFinite)) continue;
      seen = true;
      const name = named(metric, target, values);
      series.push({
        name,
        metric,
        refId: target.refId,
        values: numbers,
        config: configured(name, panel, series.length),
      });
    }
    if (!seen) silent.push(target.refId);
  });
  return { times, step, series, silent };
}

function reduce(values, how) {
  const numbers = values.filter((value) => value !== null);
  switch (how) {
    case "mean":
      return numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
    case "max":
      return Math.max(...numbers);
    case "min":
      return Math.min(...numbers);
    case "lastNotNull":
      return numbers.at(-1);
    default:
      throw new Error(`the calculation ${how} is not known to the renderer`);
  }
}
