"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (name, text = "", attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const { arms, curves } = JSON.parse(document.getElementById("readings").textContent);
  const hidden = new Set(); // numbers of the starts that are switched off
  const redraws = [];

  // contents, of the headings that this report has
  for (const heading of all("h2[id]")) {
    document.getElementById("contents").append(make("a", heading.textContent, { href: `#${heading.id}` }));
  }

  // starts, on and off in all figures and slices at once
  document.getElementById("controls").hidden = all(".toggle").length < 2;
  for (const button of all(".toggle")) {
    button.addEventListener("click", () => {
      const arm = Number(button.dataset.arm), off = !hidden.has(arm);
      if (off) hidden.add(arm); else hidden.delete(arm);
      button.setAttribute("aria-pressed", String(!off));
      for (const shape of all("[data-arms]")) {
        shape.classList.toggle("off", shape.dataset.arms.split(" ").some((index) => hidden.has(Number(index))));
      }
      for (const redraw of redraws) redraw();
    });
  }

  // values under the pointer, the finger or the arrow keys
  for (const figure of all("[data-reading]")) {
    const curve = curves[figure.dataset.reading], canvas = figure.querySelector(".canvas"), svg = canvas.querySelector("svg");
    if (!curve || !svg) continue;
    const [left, top, right, bottom] = curve.frame;
    const scale = curve.log ? Math.log : (value) => value;
    const [low, high] = curve.x.map(scale);
    const xOf = (value) => left + ((scale(value) - low) / (high - low)) * (right - left);
    const yOf = (value) => bottom - ((value - curve.y[0]) / (curve.y[1] - curve.y[0])) * (bottom - top);
    const steps = [...new Set(curve.series.flatMap((series) => series.x))].sort((a, b) => a - b);
    const readout = make("div", "", { class: "readout" });
    const shapes = [];
    let at = -1;

    const draw = (name, attributes) => {
      const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
      shapes.push(svg.appendChild(shape));
      return shape;
    };
    const show = (index) => {
      for (const shape of shapes.splice(0)) shape.remove();
      if (index < 0) return;
      at = Math.max(0, Math.min(steps.length - 1, index));
      const x = steps[at];
      draw("line", { x1: xOf(x), x2: xOf(x), y1: top, y2: bottom, class: "cursor" });
      const words = [curve.words.replace("{}", x >= 1000 ? x.toLocaleString("en") : Number(x.toPrecision(3)))];
      readout.replaceChildren(make("b", words[0]));
      for (const series of curve.series) {
        const place = series.x.indexOf(x);
        if (place < 0 || hidden.has(series.arm)) continue;
        const [mean, from, to] = [series.mean, series.low, series.high].map((values) => values[place].toFixed(1));
        const text = `${arms[series.arm]} ${mean} %${from === to ? "" : ` (${from} to ${to})`}`;
        const dot = draw("circle", { cx: xOf(x), cy: yOf(series.mean[place]), r: 3, class: `cursor-dot arm-${series.arm}` });
        dot.style.fill = "var(--arm)";
        readout.append(make("span", text));
        words.push(text);
      }
      canvas.setAttribute("aria-valuenow", at);
      canvas.setAttribute("aria-valuetext", words.join(", "));
    };
    const follow = (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      let nearest = 0;
      steps.forEach((step, i) => { if (Math.abs(xOf(step) - x) < Math.abs(xOf(steps[nearest]) - x)) nearest = i; });
      show(nearest);
    };
    for (const [key, value] of Object.entries({
      tabindex: 0, role: "slider", "aria-label": `Values along the curves: ${figure.querySelector("figcaption").textContent}`,
      "aria-valuemin": 0, "aria-valuemax": steps.length - 1, "aria-valuenow": 0,
    })) canvas.setAttribute(key, value);
    readout.append(make("span", "Point at the curves, or use the arrow keys, to read values.", { class: "hint" }));
    canvas.after(readout);
    canvas.addEventListener("pointermove", follow);
    canvas.addEventListener("pointerdown", follow);
    canvas.addEventListener("focus", () => { if (at < 0) show(steps.length - 1); });
    canvas.addEventListener("keydown", (event) => {
      const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1,
                   PageUp: at + 10, PageDown: at - 10, Home: 0, End: steps.length - 1 }[event.key];
      if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      show(Math.max(0, to));
    });
    redraws.push(() => show(at));
  }

  // tables by a click on a heading
  const valueOf = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const found = /^[+-]?[\d.]+(e[+-]?\d+)?/.exec(text.replaceAll("\u2212", "-").replaceAll(",", "").replace(/^< /, ""));
    return found ? Number(found[0]) : text;
  };
  const order = (a, b) => {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, "en");
    return typeof a === "number" ? -1 : 1; // what is undefined comes last
  };
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
    if (body.rows.length < 2) continue;
    headings.forEach((heading, column) => {
      const button = make("button", heading.textContent, { type: "button" });
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const falling = heading.getAttribute("aria-sort") === "ascending";
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
        rows.sort(([a], [b]) => (falling ? order(b, a) : order(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // slices by kind, detections by score
  const controls = document.getElementById("gallery-controls");
  if (controls) {
    controls.hidden = false;
    for (const button of all("button", controls)) {
      button.addEventListener("click", () => {
        for (const other of all("button", controls)) other.setAttribute("aria-pressed", String(other === button));
        for (const slice of all(".slice")) {
          slice.classList.toggle("off", button.dataset.kind !== "" && slice.dataset.kind !== button.dataset.kind);
        }
      });
    }
    const slider = document.getElementById("threshold"), value = document.getElementById("threshold-value");
    const hide = () => {
      const least = Number(slider.value);
      value.textContent = least.toFixed(2);
      const weak = (shape) => Number(shape.dataset.score ?? -Infinity) < least;
      for (const panel of all(".panels figure")) {
        for (const detection of all("g[data-score]", panel)) detection.classList.toggle("off", weak(detection));
        const lesions = all("rect.lesion", panel);
        for (const lesion of lesions) lesion.classList.toggle("missed", weak(lesion));
        const count = panel.querySelector(".count");
        if (count) count.textContent = lesions.filter((lesion) => !weak(lesion)).length;
      }
    };
    slider.addEventListener("input", hide);
    hide();
  }

  // paper has no folds, but for what fills pages and is in a CSV file as well
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = all("details:not([open], .bulk)");
    for (const fold of folded) fold.open = true;
  });
  window.addEventListener("afterprint", () => { for (const fold of folded) fold.open = false; });
})();
