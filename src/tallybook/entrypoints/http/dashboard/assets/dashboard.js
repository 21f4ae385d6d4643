// Draws each chart from the table under it, and brings the figures up to date. Without this script the tables say everything.
"use strict";

(() => {
  const figures = () => document.getElementById("figures");
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const CHART_HEIGHT = 240;
  let charts = [];

  // The names of rows and series, and the exact values, as they stand in the markup.
  const read = (table) => ({
    series: [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent),
    labels: [...table.tBodies[0].rows].map((row) => row.cells[0].textContent),
    values: [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1).map((cell) => Number(cell.firstElementChild.value))),
    shown: [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1).map((cell) => cell.textContent)),
  });

  // For stacked bars each series stands on those after it, and the tallest is drawn first.
  const stack = (data) => {
    const columns = data.series.map(() => []);
    for (const row of data.values) {
      let sum = 0;
      for (let place = row.length - 1; place >= 0; place--) {
        sum += row[place];
        columns[place].push(sum);
      }
    }
    return columns;
  };

  const short = (unit) => (value) => {
    const size = Math.abs(value);
    const [by, name] = size >= 1e9 ? [1e9, "B"] : size >= 1e6 ? [1e6, "M"] : size >= 1e4 ? [1e3, "k"] : [1, ""];
    return unit + (value / by).toLocaleString("en-US", { maximumFractionDigits: size < 1 ? 6 : 1 }) + name;
  };

  const tell = (plot, data, place) => {
    const readout = plot.nextElementSibling;
    if (place === null || place === undefined) {
      readout.textContent = "";
      return;
    }
    const parts = data.series.map((name, series) => `${name} ${data.shown[place][series]}`);
    readout.textContent = `${data.labels[place]}: ${parts.join(", ")}`;
  };

  const draw = (plot) => {
    const data = read(document.getElementById(plot.dataset.table));
    const format = short(plot.dataset.unit || "");
    const ink = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const bars = uPlot.paths.bars({ size: [0.75, 48] });
    const last = data.labels.length - 1;
    const chart = new uPlot(
      {
        width: plot.clientWidth,
        height: CHART_HEIGHT,
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { x: { time: false, range: [-0.6, last + 0.6] }, y: { range: (_, least, most) => [Math.min(0, least), most > 0 ? most * 1.08 : 1] } },
        axes: [
          { ...ink, grid: { show: false }, size: 30, space: 56, incrs: [1, 2, 3, 4, 6, 8, 12, 24], values: (_, places) => places.map((place) => (data.labels[place] ?? "").replace(/^[A-Z][a-z]+ /, "")) },
          { ...ink, size: 64, values: (_, values) => values.map(format) },
        ],
        series: [{}, ...data.series.map((label, place) => ({ label, paths: bars, fill: color(`--s${place + 1}`), width: 0, points: { show: false } }))],
        hooks: { setCursor: [(made) => tell(plot, data, made.cursor.idx)] },
      },
      [data.labels.map((_, place) => place), ...stack(data)],
      plot,
    );
    charts.push({ chart, plot });
  };

  const drawAll = () => {
    for (const { chart } of charts) chart.destroy();
    charts = [];
    if (window.uPlot) document.querySelectorAll("#figures .plot").forEach(draw);
  };

  const resize = () => {
    for (const { chart, plot } of charts) {
      if (chart.width !== plot.clientWidth) chart.setSize({ width: plot.clientWidth, height: CHART_HEIGHT });
    }
  };

  // New figures take the place of the old ones; opened tables stay open, and the keyboard stays where it is.
  const renew = (page) => {
    const open = [...figures().querySelectorAll("details[open]")].map((details) => details.id);
    const focused = figures().contains(document.activeElement) ? document.activeElement.closest("[id]").id : null;
    figures().replaceWith(page.getElementById("figures"));
    document.getElementById("as-of").textContent = page.getElementById("as-of").textContent;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    drawAll();
    if (focused) (document.getElementById(focused)?.querySelector("summary, [tabindex], a") ?? document.getElementById("main")).focus({ preventScroll: true });
  };

  const refresh = async () => {
    const told = document.getElementById("told");
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (answer.redirected) return location.reload();
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      told.className = "unseen";
      renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
      told.textContent = `Figures updated. ${document.getElementById("as-of").textContent}`;
    } catch {
      told.className = "problem";
      told.textContent = "The figures could not be updated.";
    }
  };

  const start = () => {
    const zone = document.querySelector(".sign-in input[name=zone]");
    if (zone) zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
    if (!figures()) return;
    drawAll();
    for (const id of ["refresh", "every"]) document.getElementById(id).hidden = false;
    document.getElementById("refresh").addEventListener("click", refresh);
    setInterval(() => {
      if (document.getElementById("every-minute").checked && !document.hidden) refresh();
    }, 60_000);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    addEventListener("resize", resize);
  };

  start();
})();
