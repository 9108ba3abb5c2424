"use strict";
(() => {
  const scan = JSON.parse(document.getElementById("scan").textContent);
  const last = scan.scores.length - 1;
  const top = scan.z_mm[0] - scan.step_mm / 2;
  const extent = scan.z_mm[last] + scan.step_mm / 2 - top;
  const zoneNames = { head_neck: "head and neck", chest: "chest", abdomen: "abdomen", pelvis: "pelvis", legs: "legs" };
  const zoneClass = (zone) => (Object.hasOwn(zoneNames, zone) ? zone : "other");
  const zoneName = (zone) => (Object.hasOwn(zoneNames, zone) ? zoneNames[zone] : zone);

  const stage = document.getElementById("stage");
  const curve = document.getElementById("curve");
  const axial = document.getElementById("axial");
  const views = [...document.querySelectorAll(".view")];
  const windows = [...document.querySelectorAll("[data-window][aria-pressed]")];
  const readout = Object.fromEntries(
    [...document.querySelectorAll("#readout [data-of]")].map((field) => [field.dataset.of, field]));

  // the margins of the plot; the views keep the upper one free for their captions
  const HEAD = 34, FOOT = 42, GAP = 10, STRIP = 18, LANE = 15, LANDMARKS = 146, MIN_VIEW_PX = 220, MAX_STACKED_PX = 280, PRINT_PX = 690;
  let at = -1, shownWindow = 0, cursors = [], dot = null, plot = null;

  const draw = (parent, name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return parent.appendChild(element);
  };
  const line = (parent, x1, y1, x2, y2, name) => draw(parent, "line", { x1, y1, x2, y2, class: name });
  const minus = (text) => String(text).replace("-", "\u2212");
  const edge = (i) => i <= 0 ? top : i > last ? top + extent : (scan.z_mm[i - 1] + scan.z_mm[i]) / 2;
  const roundTicks = (low, high, count) => {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5].find((m) => m * power >= rough) || 10);
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
    return ticks.map((tick) => Number(tick.toPrecision(6)));
  };

  function layout(width) {
    const narrow = width < 560;
    const sizes = views.map((view) => Number(view.dataset.widthMm));
    const tall = Math.max(340, Math.min(700, window.innerHeight - 250));
    const room = width * (narrow ? 0.46 : 0.52);
    // beside the curve, one height in mm: both views, or on a narrow page the first one
    let beside = narrow ? 1 : views.length;
    let scale = Math.min(tall / extent, (room - GAP * beside) / sizes.slice(0, beside).reduce((a, b) => a + b));
    // a short scan would be a thin strip: its views stand one above the other
    const stacked = extent * scale < MIN_VIEW_PX;
    if (stacked) {
      beside = 1;
      scale = Math.min(MAX_STACKED_PX / extent, (room - GAP) / Math.max(...sizes));
    }
    const height = Math.max(2, Math.round(extent * scale));
    const widths = sizes.map((mm) => Math.floor(mm * scale));
    cursors = [];
    views.forEach((view, n) => {
      view.style.width = `${widths[n]}px`;
      view.style.height = `${height}px`;
      view.style.gridArea = n < beside ? `1 / ${n + 1}` : stacked ? "2 / 1" : "2 / 1 / auto / span 2";
      drawView(view, widths[n], height);
    });
    curve.style.gridArea = `1 / ${beside + 1} / span ${stacked ? 2 : 1}`;
    const taken = stacked ? Math.max(...widths) + GAP : widths.slice(0, beside).reduce((sum, w) => sum + w + GAP, 0);
    drawCurve(Math.min(700, Math.floor(width - taken)), stacked ? Math.max(300, 2 * height) : height, narrow);
    axial.width = axial.height = Math.round(axial.clientWidth * (window.devicePixelRatio || 1));
    const shown = at < 0 ? Math.floor(last / 2) : at;
    at = -1;
    show(shown);
  }

  function drawView(view, width, height) {
    view.querySelector("svg")?.remove();
    const svg = draw(view, "svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const y = (z) => ((z - top) / extent) * height;
    for (const run of scan.zones || []) {
      const from = y(edge(run.first_slice)), to = y(edge(run.last_slice + 1));
      draw(svg, "rect", { x: 0, y: from, width: 6, height: to - from, class: zoneClass(run.zone) });
      if (run.first_slice > 0) line(svg, 6, from, width, from, "border");
    }
    cursors.push({ mark: line(svg, 0, 0, width, 0, "cursor"), y });
  }

  function drawCurve(width, height, narrow) {
    curve.replaceChildren();
    curve.setAttribute("width", width);
    curve.setAttribute("height", height + HEAD + FOOT);
    curve.setAttribute("viewBox", `0 0 ${width} ${height + HEAD + FOOT}`);
    const lanes = anomalyLanes();
    const marks = narrow ? [] : scan.landmarks;
    const x0 = 40 + (scan.zones ? STRIP + 2 : 0);
    const x1 = width - 2 - lanes.length * LANE - (marks.length ? LANDMARKS : 8);
    const sd = scan.scores_sd || scan.scores.map(() => 0);
    const lows = scan.scores.map((s, i) => s - 1.96 * sd[i]), highs = scan.scores.map((s, i) => s + 1.96 * sd[i]);
    const low = Math.min(...lows), high = Math.max(...highs), pad = (high - low) * 0.05 || 0.5;
    const x = (score) => x0 + ((score - low + pad) / (high - low + 2 * pad)) * (x1 - x0);
    const y = (z) => HEAD + ((z - top) / extent) * height;
    plot = { x, y, height };
    const bottom = HEAD + height;
    const clip = draw(draw(curve, "defs", {}), "clipPath", { id: "inside" });
    draw(clip, "rect", { x: x0, y: HEAD, width: x1 - x0, height });

    for (const run of scan.zones || []) {
      const from = y(edge(run.first_slice)), to = y(edge(run.last_slice + 1)), name = zoneClass(run.zone);
      draw(curve, "rect", { x: 40, y: from, width: STRIP, height: to - from, class: name });
      draw(curve, "rect", { x: x0, y: from, width: x1 - x0, height: to - from, class: `${name} tint` });
      rotatedLabel(curve, 40 + STRIP / 2, (from + to) / 2, to - from, zoneName(run.zone), "zone-label", 6.6);
    }
    for (const anomaly of scan.anomalies) {
      if (anomaly.last_slice - anomaly.first_slice > 0.5 * last) continue; // its lane says it better
      const from = y(edge(anomaly.first_slice)), to = y(edge(anomaly.last_slice + 1));
      draw(curve, "rect", { x: x0, y: from, width: x1 - x0, height: Math.max(2, to - from), class: "shade" });
    }
    for (const z of roundTicks(top, top + extent, Math.max(2, height / 70))) {
      line(curve, x0, y(z), x1, y(z), "grid");
      draw(curve, "text", { x: 34, y: y(z) + 4, "text-anchor": "end" }, z);
    }
    draw(curve, "text", { x: 34, y: HEAD - 12, "text-anchor": "end", class: "title" }, "mm");
    for (const score of roundTicks(low - pad, high + pad, Math.max(2, (x1 - x0) / 75))) {
      line(curve, x(score), HEAD, x(score), bottom, "grid");
      draw(curve, "text", { x: x(score), y: bottom + 16, "text-anchor": "middle" }, minus(score));
    }
    draw(curve, "text", { x: (x0 + x1) / 2, y: bottom + 34, "text-anchor": "middle", class: "title" }, "score");
    if (scan.coordinate_ticks.length) {
      let labelled = Infinity;
      for (const tick of scan.coordinate_ticks) {
        line(curve, x(tick.score), HEAD - 5, x(tick.score), HEAD, "tick");
        if (Math.abs(x(tick.score) - labelled) < 25) continue;
        labelled = x(tick.score);
        draw(curve, "text", { x: labelled, y: HEAD - 9, "text-anchor": "middle" }, minus(tick.coordinate));
      }
      draw(curve, "text", { x: (x0 + x1) / 2, y: 10, "text-anchor": "middle", class: "title" }, "body coordinate");
    }

    const points = (values) => values.map((s, i) => `${x(s).toFixed(1)},${y(scan.z_mm[i]).toFixed(1)}`);
    const inside = draw(curve, "g", { "clip-path": "url(#inside)" });
    if (scan.scores_sd) draw(inside, "polygon", { points: [...points(lows), ...points(highs).reverse()].join(" "), class: "spread" });
    if (scan.line) {
      const ends = [top, top + extent].map((z) => [x(scan.line.intercept + scan.line.slope * z), y(z)]);
      line(inside, ...ends[0], ...ends[1], "fit");
    }
    draw(inside, "polyline", { points: points(scan.scores).join(" "), class: "score" });
    draw(curve, "rect", { x: x0, y: HEAD, width: x1 - x0, height, class: "frame" });

    drawLandmarks(marks, x1, y, bottom);
    lanes.forEach((lane, n) => {
      for (const anomaly of lane) {
        const from = y(edge(anomaly.first_slice)), tall = Math.max(4, y(edge(anomaly.last_slice + 1)) - from);
        const group = draw(curve, "g", { class: "lane" }), left = width - (lanes.length - n) * LANE + 2;
        draw(group, "rect", { x: left, y: from, width: LANE - 3, height: tall, rx: 2 });
        draw(group, "title", {}, `${anomaly.code}: ${anomaly.message}`);
        rotatedLabel(group, left + (LANE - 3) / 2, from + tall / 2, tall, anomaly.code.replaceAll("_", " "), "", 6.4);
      }
    });
    cursors.push({ mark: line(curve, x0, 0, x1, 0, "cursor"), y });
    dot = draw(curve, "circle", { r: 4.5, class: "dot" });
  }

  function rotatedLabel(parent, x, y, room, text, name, pxPerLetter) {
    if (text.length * pxPerLetter + 6 > room) return;
    draw(parent, "text", { transform: `translate(${x} ${y}) rotate(-90)`, "text-anchor": "middle", dy: "0.34em", class: name }, text);
  }

  function drawLandmarks(marks, x, y, bottom) {
    const heights = marks.map((mark) => y(mark.z_mm));
    for (let i = 1; i < heights.length; i++) heights[i] = Math.max(heights[i], heights[i - 1] + 13);
    for (let i = heights.length - 1, limit = bottom - 4; i >= 0; i--, limit -= 13) heights[i] = Math.min(heights[i], limit);
    marks.forEach((mark, i) => {
      draw(curve, "polyline", { points: `${x},${y(mark.z_mm)} ${x + 4},${y(mark.z_mm)} ${x + 10},${heights[i]} ${x + 13},${heights[i]}`, class: "tick", fill: "none" });
      draw(curve, "text", { x: x + 16, y: heights[i] + 3.5 }, mark.name);
    });
  }

  function anomalyLanes() {
    const lanes = [];
    for (const anomaly of scan.anomalies) {
      const free = lanes.find((lane) => lane.every((other) => anomaly.first_slice > other.last_slice || anomaly.last_slice < other.first_slice));
      if (free) free.push(anomaly); else lanes.push([anomaly]);
    }
    return lanes;
  }

  function show(index) {
    const slice = Math.max(0, Math.min(last, index));
    if (slice === at) return;
    at = slice;
    const z = scan.z_mm[at];
    for (const { mark, y } of cursors) {
      mark.setAttribute("y1", y(z));
      mark.setAttribute("y2", y(z));
    }
    dot.setAttribute("cx", plot.x(scan.scores[at]));
    dot.setAttribute("cy", plot.y(z));
    const range = Math.max(...scan.scores) - Math.min(...scan.scores);
    const digits = range > 100 ? 1 : range > 2 ? 2 : 3;
    const number = (value, decimals) => minus(value.toFixed(decimals));
    const spread = (sd, decimals) => (sd ? ` ± ${number(sd[at], decimals)}` : "");
    const zone = (scan.zones || []).find((run) => run.last_slice >= at)?.zone;
    const words = {
      slice: `${at} of 0–${last}`,
      z: `${z.toFixed(1)} mm`,
      score: number(scan.scores[at], digits) + spread(scan.scores_sd, digits),
    };
    if (scan.coordinate) words.coordinate = number(scan.coordinate[at], 1) + spread(scan.coordinate_sd, 1);
    if (zone !== undefined) words.zone = zoneName(zone);
    words.anomalies = scan.anomalies.filter((a) => a.first_slice <= at && at <= a.last_slice).map((a) => a.code).join(", ");
    for (const [key, text] of Object.entries(words)) readout[key].textContent = text;
    if (zone !== undefined) {
      const swatch = document.createElement("span");
      swatch.className = `swatch ${zoneClass(zone)}`;
      readout.zone.prepend(swatch);
    }
    stage.setAttribute("aria-valuenow", at);
    stage.setAttribute("aria-valuetext", Object.entries(words).filter(([, text]) => text).map(([key, text]) => `${key} ${text}`).join(", "));
    paintSlice();
  }

  function paintSlice() {
    const sheet = document.querySelectorAll(`img.sheet[data-window="${shownWindow}"]`)[Math.floor(at / scan.per_sheet)];
    if (!sheet.complete) {
      sheet.addEventListener("load", paintSlice, { once: true });
      return;
    }
    const place = at % scan.per_sheet, side = scan.tile_px, pen = axial.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(sheet, (place % scan.columns) * side, Math.floor(place / scan.columns) * side, side, side, 0, 0, axial.width, axial.height);
    axial.setAttribute("aria-label", `Axial slice ${at}, ${windows[shownWindow].textContent} window`);
  }

  const sliceAt = (z) => {
    let nearest = 0;
    scan.z_mm.forEach((other, i) => { if (Math.abs(other - z) < Math.abs(scan.z_mm[nearest] - z)) nearest = i; });
    return nearest;
  };
  const follow = (element, head, height) => (event) => {
    const y = event.clientY - element.getBoundingClientRect().top - head;
    show(sliceAt(top + (y / height()) * extent));
  };
  for (const view of views) {
    const move = follow(view, 0, () => view.clientHeight);
    view.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") move(event); });
    view.addEventListener("click", move); // a tap; a swipe scrolls the page
  }
  const moveOnCurve = follow(curve, HEAD, () => plot.height);
  curve.addEventListener("pointermove", moveOnCurve);
  curve.addEventListener("pointerdown", moveOnCurve);
  stage.addEventListener("pointerdown", () => stage.focus({ preventScroll: true }));
  stage.addEventListener("keydown", (event) => {
    const to = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1,
                 PageDown: at + 10, PageUp: at - 10, Home: 0, End: last }[event.key];
    if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    show(to);
  });
  axial.addEventListener("pointerdown", () => stage.focus({ preventScroll: true }));
  axial.addEventListener("wheel", (event) => {
    if (document.activeElement !== stage) return; // the page scrolls until the picture was clicked
    event.preventDefault();
    show(at + Math.sign(event.deltaY));
  }, { passive: false });
  for (const button of windows) {
    button.addEventListener("click", () => {
      shownWindow = Number(button.dataset.window);
      for (const other of windows) other.setAttribute("aria-pressed", String(other === button));
      paintSlice();
    });
  }
  document.getElementById("lists").addEventListener("click", (event) => {
    const button = event.target.closest("[data-slice]");
    if (!button) return;
    show(Number(button.dataset.slice));
    stage.scrollIntoView({ block: "nearest" });
  });

  const fit = () => layout(stage.clientWidth);
  window.addEventListener("resize", fit);
  window.addEventListener("beforeprint", () => layout(PRINT_PX));
  window.addEventListener("afterprint", fit);
  fit();
})();
