(() => {
  "use strict";
  const root = document.documentElement;
  const SVG = "http://www.w3.org/2000/svg";

  const button = document.querySelector(".theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.hidden = false;
  name();
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });

  const make = (kind, attributes) => {
    const element = document.createElementNS(SVG, kind);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // For each series the point nearest to x; where a series holds its value, the last one at or before x.
  const pick = (points, x, steps) => {
    let best = null;
    for (const point of points) {
      if (steps && point[0] > x + 1e-9) break;
      if (!best || steps || Math.abs(point[0] - x) < Math.abs(best[0] - x)) best = point;
    }
    return best;
  };

  const attach = (svg, data) => {
    const [left, top, width, height] = svg.dataset.plot.split(" ").map(Number);
    const hover = svg.querySelector(".hover");
    const plot = svg.closest(".plot");
    const all = [...new Set(data.series.flatMap((s) => s.points.map((p) => p[0])))].sort((a, b) => a - b);
    let tip = null, at = -1;

    const clear = () => { hover.replaceChildren(); if (tip) tip.remove(); tip = null; };
    const show = (index) => {
      at = Math.max(0, Math.min(all.length - 1, index));
      const x = all[at];
      clear();
      hover.append(make("line", { class: "hair", x1: left + width * x, x2: left + width * x, y1: top, y2: top + height }));
      tip = document.createElement("div");
      tip.className = "tip";
      const head = document.createElement("b");
      tip.append(head);
      for (const series of data.series) {
        const point = pick(series.points, x, data.steps);
        if (!point || (!data.steps && Math.abs(point[0] - x) > 0.006)) continue;
        if (!head.textContent) head.textContent = point[2];
        hover.append(make("circle", { class: "dot " + series.ink, cx: left + width * (data.steps ? x : point[0]), cy: top + height * (1 - point[1]), r: 3.5 }));
        const row = document.createElement("div"), chip = document.createElement("i");
        chip.className = series.ink;
        row.append(chip, series.name + " " + point[3]);
        tip.append(row);
      }
      plot.append(tip);
      const box = svg.getBoundingClientRect(), frame = plot.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
      const place = box.left - frame.left + (left + width * x) * scale;
      const room = frame.width - tip.offsetWidth;
      tip.style.left = Math.max(0, Math.min(room, place + 14 + tip.offsetWidth > frame.width ? place - tip.offsetWidth - 14 : place + 14)) + "px";
      tip.style.top = (box.top - frame.top + top * scale) + "px";
    };
    const move = (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) * svg.viewBox.baseVal.width / box.width - left) / width;
      if (x < -0.03 || x > 1.03 || !all.length) return clear();
      let nearest = 0;
      all.forEach((value, index) => { if (Math.abs(value - x) < Math.abs(all[nearest] - x)) nearest = index; });
      show(nearest);
    };
    svg.tabIndex = 0;
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", clear);
    svg.addEventListener("blur", clear);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[event.key];
      if (step && all.length) { event.preventDefault(); show(at + step); }
      if (event.key === "Escape") clear();
    });
  };

  for (const script of document.querySelectorAll("script[data-for]")) {
    const data = JSON.parse(script.textContent);
    for (const svg of script.parentElement.querySelectorAll("svg.chart")) attach(svg, data);
  }
  root.dataset.ready = "yes";
})();
