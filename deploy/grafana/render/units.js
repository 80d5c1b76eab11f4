"use strict";
// Grafana's units, those that the dashboards use: a number to what stands on screen.
const SI = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
  [1, ""],
];
const IEC = [
  [2 ** 40, "Ti"],
  [2 ** 30, "Gi"],
  [2 ** 20, "Mi"],
  [2 ** 10, "Ki"],
  [1, ""],
];
const SECONDS = [
  [86400, " d"],
  [3600, " h"],
  [60, " min"],
  [1, " s"],
  [1e-3, " ms"],
  [1e-6, " µs"],
];

function digits(value, decimals) {
  if (decimals !== undefined) return value.toFixed(decimals);
  const size = Math.abs(value);
  if (size === 0) return "0";
  const places = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : 3;
  return String(Number(value.toFixed(places)));
}

function scaled(value, scale, unit, decimals) {
  const [factor, prefix] = scale.find(([step]) => Math.abs(value) >= step) ?? scale.at(-1);
  return `${digits(value / factor, decimals)}${unit === "" && prefix === "" ? "" : ` ${prefix}${unit}`}`;
}

const UNITS = {
  none: (v, d) => digits(v, d),
  short: (v, d) => scaled(v, SI, "", d).replace(" ", ""),
  percent: (v, d) => `${digits(v, d)}%`,
  percentunit: (v, d) => `${digits(v * 100, d)}%`,
  celsius: (v, d) => `${digits(v, d ?? 0)} °C`,
  watt: (v, d) => scaled(v, SI, "W", d),
  hertz: (v, d) => scaled(v, SI, "Hz", d),
  joule: (v, d) => scaled(v, SI, "J", d),
  bytes: (v, d) => scaled(v, IEC, "B", d),
  binBps: (v, d) => scaled(v, IEC, "B/s", d),
  reqps: (v, d) => scaled(v, SI, "req/s", d),
  cps: (v, d) => scaled(v, SI, "c/s", d),
  bool_yes_no: (v) => (v ? "Yes" : "No"),
  s: (v, d) => {
    if (v === 0) return "0 s";
    const [factor, name] = SECONDS.find(([step]) => Math.abs(v) >= step) ?? SECONDS.at(-1);
    return `${digits(v / factor, d)}${name}`;
  },
};

function mapped(value, config) {
  for (const { type, options } of config.mappings ?? []) {
    if (type === "value" && options[String(value)]) return options[String(value)];
    if (type === "range" && value >= (options.from ?? -Infinity) && value <= (options.to ?? Infinity))
      return options.result;
  }
  return undefined;
}

function format(value, config) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const hit = mapped(value, config);
  if (hit) return hit.text;
  const unit = config.unit ?? "none";
  if (unit.startsWith("si:")) return scaled(value, SI, unit.slice(3), config.decimals);
  if (!UNITS[unit]) throw new Error(`the unit ${unit} is not known to the renderer`);
  return UNITS[unit](value, config.decimals);
}
