"use strict";
// A function for each type of panel. Charts are ECharts'; what is text or a table is HTML.
const WEAK = "#8e8e9e",
  LINE = "#25282e";
const CALCS = { mean: "Mean", max: "Max", min: "Min", lastNotNull: "Last" };

function element(tag, parent, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function chart(box, option) {
  const made = echarts.init(box, null, { renderer: "canvas" });
  made.setOption({ animation: false, textStyle: { fontFamily: "Inter, DejaVu Sans, sans-serif" }, ...option });
  return made;
}

const clock = (seconds) => new Date(seconds * 1000).toTimeString().slice(0, 5);

function timeAxis(data) {
  return {
    type: "time",
    min: data.times[0] * 1000,
    max: data.times.at(-1) * 1000,
    splitNumber: 6,
    axisLine: { lineStyle: { color: LINE } },
    axisTick: { show: false },
    splitLine: { show: true, lineStyle: { color: LINE } },
    axisLabel: {
      color: WEAK,
      fontSize: 11,
      hideOverlap: true,
      formatter: (value) => clock(value / 1000),
      showMinLabel: false,
      showMaxLabel: false,
    },
  };
}

// Round numbers that enclose the data, as Grafana's axes are.
function extent(all, config) {
  let low = config.min ?? Math.min(...all),
    high = config.max ?? Math.max(...all);
  if (low === 0 && high === 0) return { min: 0, max: 1, interval: 0.25 };
  if (!(high > low)) high = low + (Math.abs(low) || 1);
  const binary = config.unit === "bytes" || config.unit === "binBps";
  const rough = (high - low) / 4;
  const size = 10 ** Math.floor(Math.log10(rough));
  const interval = binary
    ? 2 ** Math.ceil(Math.log2(rough))
    : [1, 2, 2.5, 5, 10].map((f) => f * size).find((f) => f >= rough);
  if (config.min === undefined) low = Math.floor(low / interval) * interval;
  if (config.max === undefined) high = Math.ceil((high * 1.001) / interval) * interval;
  return { min: low, max: high, interval };
}

function stacks(data) {
  const percent = data.series.some((s) => s.config.custom.stacking?.mode === "percent");
  if (!percent) return data;
  const totals = data.times.map((_, i) => data.series.reduce((sum, s) => sum + (s.values[i] ?? 0), 0));
  const series = data.series.map((s) => ({
    ...s,
    values: s.values.map((v, i) => (totals[i] ? (v ?? 0) / totals[i] : null)),
    config: { ...s.config, unit: "percentunit", max: 1 },
  }));
  return { ...data, series };
}

function timeseries(panel, body, section, raw) {
  const data = stacks(raw);
  const right = (s) => s.config.custom.axisPlacement === "right";
  const legend = element("div", section, "legend");
  legendTable(panel, legend, data);
  const axes = [false, true].map((side) => {
    const those = data.series.filter((s) => right(s) === side);
    if (!those.length) return { show: false, min: 0, max: 1 };
    const config = those[0].config;
    const piles = those.filter((s) => s.config.custom.stacking?.mode === "normal");
    const sums = piles.length ? data.times.map((_, i) => piles.reduce((sum, s) => sum + (s.values[i] ?? 0), 0)) : [];
    const numbers = [...those.flatMap((s) => s.values.filter((v) => v !== null)), ...sums];
    return {
      type: "value",
      position: side ? "right" : "left",
      ...extent(numbers, config),
      splitLine: { show: !side, lineStyle: { color: LINE } },
      axisLabel: {
        color: WEAK,
        fontSize: 11,
        formatter: (value) =>
          format(Math.abs(value) < 1e-12 ? 0 : value, { ...config, decimals: undefined, mappings: [] }),
      },
    };
  });
  const { thresholds, custom } = panel.fieldConfig.defaults;
  const lines =
    custom.thresholdsStyle.mode === "off"
      ? []
      : thresholds.steps.filter((s) => s.value !== null && s.value <= axes[0].max);
  const series = data.series.map((s, index) => {
    const own = s.config.custom;
    const stacked = own.stacking?.mode !== "none" ? own.stacking.group : undefined;
    const common = {
      name: s.name,
      yAxisIndex: right(s) ? 1 : 0,
      stack: stacked,
      data: data.times.map((t, i) => [t * 1000, stacked ? (s.values[i] ?? 0) : s.values[i]]),
      itemStyle: { color: s.config.shade },
      markLine: index
        ? undefined
        : {
            silent: true,
            symbol: "none",
            label: { show: false },
            data: lines.map((step) => ({
              yAxis: step.value,
              lineStyle: { color: shade(step.color), type: "dashed", opacity: 0.6, width: 1 },
            })),
          },
    };
    if (own.drawStyle === "bars")
      return {
        ...common,
        type: "bar",
        barWidth: Math.max(2, Math.floor(body.clientWidth / data.times.length) - 1),
        itemStyle: { color: s.config.shade, opacity: 0.85 },
      };
    const fill = (own.fillOpacity ?? 0) / 100;
    const area =
      own.gradientMode === "opacity" && fill > 0
        ? new echarts.graphic.LinearGradient(0, 0, 0, 1, [
            { offset: 0, color: s.config.shade },
            { offset: 1, color: `${s.config.shade}00` },
          ])
        : s.config.shade;
    return {
      ...common,
      type: "line",
      showSymbol: false,
      connectNulls: own.spanNulls,
      areaStyle: fill > 0 ? { color: area, opacity: own.gradientMode === "opacity" ? fill * 2 : fill } : undefined,
      lineStyle: {
        width: own.lineWidth * 0.75,
        color: s.config.shade,
        type: own.lineStyle?.fill === "dash" ? [6, 4] : "solid",
      },
    };
  });
  chart(body, {
    grid: { left: 10, right: axes[1].show === false ? 14 : 10, top: 8, bottom: 4, containLabel: true },
    xAxis: timeAxis(data),
    yAxis: axes,
    series,
  });
}

function legendTable(panel, legend, data) {
  const calcs = panel.options.legend.calcs;
  const table = element("table", legend);
  const head = element("tr", table);
  element("th", head, "", "Name");
  for (const calc of calcs) element("th", head, "", CALCS[calc]);
  // Grafana lets one scroll; a picture shows whole lines.
  const room = Math.floor((legend.parentElement.clientHeight * 0.42) / 19) - 1;
  for (const s of data.series.slice(0, room)) {
    const line = element("tr", table);
    const name = element("td", line);
    element("span", name, "key").style.background = s.config.shade;
    name.append(s.name);
    for (const calc of calcs) element("td", line, "", format(reduce(s.values, calc), s.config));
  }
}

function gauge(panel, body, _section, data) {
  const s = data.series[0],
    value = reduce(s.values, "lastNotNull");
  const { min, max, thresholds } = s.config;
  const share = (at) => Math.min(1, Math.max(0, (at - min) / (max - min)));
  const ring = thresholds.steps.map((step, i) => [
    i + 1 < thresholds.steps.length ? share(thresholds.steps[i + 1].value) : 1,
    shade(step.color),
  ]);
  const colour = shadeOf(value, s.config);
  const size = Math.min(body.clientHeight / 1.5, body.clientWidth * 0.45);
  const arc = {
    type: "gauge",
    min,
    max,
    startAngle: 205,
    endAngle: -25,
    center: ["50%", size + 4],
    pointer: { show: false },
    axisTick: { show: false },
    splitLine: { show: false },
    axisLabel: { show: false },
  };
  chart(body, {
    series: [
      { ...arc, radius: size, axisLine: { lineStyle: { width: 4, color: ring } }, detail: { show: false }, data: [] },
      {
        ...arc,
        radius: size - 8,
        axisLine: { lineStyle: { width: size * 0.22, color: [[1, "#2b2e35"]] } },
        progress: { show: true, width: size * 0.22, itemStyle: { color: colour } },
        detail: {
          formatter: () => format(value, s.config),
          color: colour,
          fontSize: Math.max(20, size * 0.3),
          fontWeight: 600,
          offsetCenter: [0, "-2%"],
        },
        data: [{ value: Math.min(max, Math.max(min, value)) }],
      },
    ],
  });
}

function stat(panel, body, _section, data) {
  const all = element("div", body, "stats");
  // All of them first: a chart is as wide as its box when it is drawn.
  const boxes = data.series.map(() => element("div", all, "stat"));
  for (const [index, s] of data.series.entries()) {
    const value = reduce(s.values, "lastNotNull"),
      colour = shadeOf(value, s.config),
      one = boxes[index];
    if (panel.options.graphMode === "area") one.classList.add("graphed");
    if (panel.options.graphMode === "area") {
      const low = Math.min(...s.values.filter((v) => v !== null)),
        high = Math.max(...s.values.filter((v) => v !== null));
      const area = new echarts.graphic.LinearGradient(0, 0, 0, 1, [
        { offset: 0, color: `${colour}66` },
        { offset: 1, color: `${colour}08` },
      ]);
      chart(element("div", one, "spark"), {
        grid: { left: 0, right: 0, top: 2, bottom: 0 },
        xAxis: { type: "time", show: false, min: data.times[0] * 1000, max: data.times.at(-1) * 1000 },
        yAxis: { show: false, min: low - (high - low) * 0.1, max: high > low ? high : low + 1 },
        series: [
          {
            type: "line",
            showSymbol: false,
            data: data.times.map((t, i) => [t * 1000, s.values[i]]),
            lineStyle: { width: 1, color: colour },
            areaStyle: { color: area },
          },
        ],
      });
    }
    const text = element("div", one, "value", format(value, s.config));
    text.style.fontSize = `${Math.min(46, body.clientHeight * 0.34)}px`;
    if (panel.options.colorMode === "background") {
      one.classList.add("filled");
      one.style.background = `linear-gradient(120deg, ${colour}, ${colour}cc)`;
    } else text.style.color = colour;
    if (data.series.length > 1) element("div", one, "name", s.name);
  }
}

function bargauge(panel, body, _section, data) {
  const all = element("div", body, "lcds");
  for (const s of data.series) {
    const value = reduce(s.values, "lastNotNull"),
      { min, max } = s.config,
      line = element("div", all, "lcd");
    element("div", line, "name", s.name);
    const cells = element("div", line, "cells");
    for (let i = 0; i < 30; i += 1) {
      const at = min + ((i + 1) / 30) * (max - min);
      element("i", cells).style.background =
        at <= value ? stepOf(at, s.config.thresholds) : `${stepOf(at, s.config.thresholds)}22`;
    }
    element("div", line, "value", format(value, s.config)).style.color = shadeOf(value, s.config);
  }
}

function heatmap(panel, body, _section, data) {
  const edge = (s) => (s.metric.le === "+Inf" ? Infinity : Number(s.metric.le));
  const rows = [...data.series].sort((a, b) => edge(a) - edge(b));
  const cells = rows.map((s, r) =>
    s.values.map((v, i) => Math.max(0, (v ?? 0) - (r ? (rows[r - 1].values[i] ?? 0) : 0))),
  );
  const used = cells.map((row) => row.some((v) => v > 1e-9));
  const first = Math.max(0, used.indexOf(true) - 1),
    last = Math.min(rows.length - 1, used.lastIndexOf(true) + 1);
  const points = [];
  for (let r = first; r <= last; r += 1) cells[r].forEach((v, i) => v > 1e-9 && points.push([i, r - first, v]));
  const top = Math.max(...points.map((p) => p[2]));
  const schemes = {
    Blues: ["#16263f", "#2f6db5", "#a6cbf5"],
    Oranges: ["#3a2410", "#c8681a", "#ffd9a0"],
    Turbo: ["#30123b", "#28bceb", "#a4fc3c", "#fb7e21", "#7a0403"],
  };
  chart(body, {
    grid: { left: 10, right: 14, top: 8, bottom: 34, containLabel: true },
    xAxis: {
      type: "category",
      data: data.times.map(clock),
      axisTick: { show: false },
      axisLine: { lineStyle: { color: LINE } },
      axisLabel: { color: WEAK, fontSize: 11, interval: Math.ceil(data.times.length / 8) },
    },
    yAxis: {
      type: "category",
      data: rows
        .slice(first, last + 1)
        .map((s) => (edge(s) === Infinity ? "+Inf" : format(edge(s), { unit: panel.options.yAxis.unit }))),
      axisTick: { show: false },
      axisLine: { show: false },
      axisLabel: { color: WEAK, fontSize: 11 },
    },
    visualMap: {
      min: 0,
      max: top,
      calculable: false,
      orient: "horizontal",
      left: "center",
      bottom: 2,
      itemWidth: 10,
      itemHeight: 160,
      textStyle: { color: WEAK, fontSize: 11 },
      text: [format(top, panel.fieldConfig.defaults), "0"],
      inRange: { color: schemes[panel.options.color.scheme] },
    },
    series: [{ type: "heatmap", data: points, itemStyle: { borderColor: "#181b1f", borderWidth: 1, borderRadius: 1 } }],
  });
}

function states(panel, body, section, data) {
  const list = element("div", element("div", section, "legend"), "list");
  for (const mapping of panel.fieldConfig.defaults.mappings) {
    for (const { text, color } of mapping.type === "range"
      ? [mapping.options.result]
      : Object.values(mapping.options)) {
      const item = element("span", list);
      element("i", item, "key").style.background = shade(color);
      item.append(text);
    }
  }
  const names = data.series.map((s) => s.name),
    spans = [];
  data.series.forEach((s, r) => {
    let from = 0;
    for (let i = 1; i <= s.values.length; i += 1) {
      if (i < s.values.length && s.values[i] === s.values[from]) continue;
      if (s.values[from] !== null)
        spans.push({
          value: [r, data.times[from] * 1000, (data.times[i] ?? data.times.at(-1)) * 1000],
          itemStyle: { color: shadeOf(s.values[from], s.config), opacity: 0.85 },
        });
      from = i;
    }
  });
  chart(body, {
    grid: { left: 10, right: 14, top: 8, bottom: 4, containLabel: true },
    xAxis: timeAxis(data),
    yAxis: {
      type: "category",
      data: names,
      inverse: true,
      axisTick: { show: false },
      axisLine: { show: false },
      axisLabel: { color: WEAK, fontSize: 11, width: 190, overflow: "truncate" },
    },
    series: [
      {
        type: "custom",
        data: spans,
        encode: { x: [1, 2], y: 0 },
        renderItem: (_, at) => {
          const a = at.coord([at.value(1), at.value(0)]),
            b = at.coord([at.value(2), at.value(0)]),
            tall = at.size([0, 1])[1] * 0.8;
          return {
            type: "rect",
            shape: { x: a[0], y: a[1] - tall / 2, width: Math.max(1, b[0] - a[0]), height: tall },
            style: { fill: at.visual("color"), opacity: 0.85 },
          };
        },
      },
    ],
  });
}

function table(panel, body, _section, data) {
  const organize = panel.transformations.find((t) => t.id === "organize").options;
  const columns = Object.keys(organize.indexByName).sort((a, b) => organize.indexByName[a] - organize.indexByName[b]);
  const labels = columns.filter((name) => !name.startsWith("Value #"));
  const lines = new Map();
  for (const s of data.series) {
    const key = labels.map((label) => s.metric[label] ?? "").join("\u0000");
    if (!lines.has(key)) lines.set(key, Object.fromEntries(labels.map((label) => [label, s.metric[label] ?? ""])));
    lines.get(key)[`Value #${s.refId}`] = s.values[0];
  }
  let rows = [...lines.values()];
  const sort = panel.options.sortBy[0];
  if (sort) {
    const column = columns.find((name) => organize.renameByName[name] === sort.displayName);
    const order = (a, b) => (typeof a === "string" ? a.localeCompare(b) : (a ?? -1) - (b ?? -1));
    rows = rows.sort((a, b) => (sort.desc ? -1 : 1) * order(a[column], b[column]));
  }
  const frame = element("table", body, "frame"),
    head = element("tr", frame);
  for (const name of columns)
    element("th", head, name.startsWith("Value #") ? "number" : "", organize.renameByName[name]);
  for (const row of rows) {
    const line = element("tr", frame);
    for (const name of columns) {
      const value = row[name];
      if (!name.startsWith("Value #")) {
        element("td", line, "", value || "–");
        continue;
      }
      const config = configured(organize.renameByName[name], panel, 0);
      const cell = element("td", line, "number", format(value, config));
      if (config.custom.cellOptions?.type === "color-text" && value !== undefined)
        cell.style.color = shadeOf(value, config);
    }
  }
}

const DRAW = { timeseries, gauge, stat, bargauge, heatmap, "state-timeline": states, table };
