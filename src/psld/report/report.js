"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const DASHES = ["", "7 4", "2 3", "9 3 2 3", "12 4", "4 2"];

  const data = (name) => {
    const block = document.getElementById("data-" + name);
    return block ? JSON.parse(block.textContent) : null;
  };

  const drawn = (parent, name, attributes, content) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (content !== undefined) node.textContent = content;
    parent.append(node);
    return node;
  };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const short = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-3) return value.toExponential(0).replace("e+", "e");
    return String(Number(value.toPrecision(3)));
  };

  // ---- axes --------------------------------------------------------------------------------------------------------

  const logTicks = (low, high) => {
    const ticks = [];
    for (const factors of [[1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]]) {
      ticks.length = 0;
      for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
        for (const f of factors) {
          const tick = f * 10 ** e;
          if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
        }
      }
      if (ticks.length >= 3) break;
    }
    return ticks.length > 8 ? ticks.filter((t) => Math.abs(Math.log10(t) % 1) < 1e-9) : ticks;
  };

  const linearTicks = (low, high, count) => {
    const raw = (high - low) / count || 1;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((f) => f * unit).find((s) => s >= raw);
    const ticks = [];
    for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) ticks.push(Math.abs(t) < step * 1e-9 ? 0 : t);
    return ticks;
  };

  const axis = (values, log, from, to, given) => {
    let low = Math.min(...values);
    let high = Math.max(...values);
    if (log) { low /= 1.08; high *= 1.08; } else if (low === high) { low -= 1; high += 1; }
    const f = log ? Math.log : (v) => v;
    const at = (v) => from + ((f(v) - f(low)) / (f(high) - f(low))) * (to - from);
    const ticks = given || (log ? logTicks(low, high) : linearTicks(low, high, Math.max(2, Math.abs(to - from) / 90)));
    return { at, ticks };
  };

  // ---- charts ------------------------------------------------------------------------------------------------------

  const chart = (box) => {
    const content = data(box.dataset.chart);
    const all = content.series.flatMap((s) => s.points);
    const tip = box.querySelector(".tooltip");
    let selected = null;
    let places = [];
    let ring = null;

    const draw = () => {
      const width = box.clientWidth;
      const height = Math.max(230, Math.min(380, width * 0.55));
      const left = 52, right = 12, top = 12, bottom = 44;
      box.querySelector("svg")?.remove();
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      svg.setAttribute("aria-hidden", "true");
      box.prepend(svg);
      const heights = all.map((p) => p[1]).concat(content.floor ? [content.floor.value] : []);
      const x = axis(all.map((p) => p[0]), content.x.log, left, width - right, content.x.ticks);
      const y = axis(heights, content.y.log, height - bottom, top);
      for (const tick of y.ticks) {
        drawn(svg, "line", { class: "rule", x1: left, x2: width - right, y1: y.at(tick), y2: y.at(tick) });
        drawn(svg, "text", { x: left - 6, y: y.at(tick) + 4, "text-anchor": "end" }, short(tick));
      }
      let edge = -Infinity;
      for (const tick of x.ticks) {
        if (x.at(tick) - edge < 34) continue;
        edge = x.at(tick);
        drawn(svg, "line", { class: "rule", x1: edge, x2: edge, y1: height - bottom, y2: height - bottom + 5 });
        drawn(svg, "text", { x: edge, y: height - bottom + 18, "text-anchor": "middle" }, short(tick));
      }
      drawn(svg, "text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, content.x.label);
      drawn(svg, "text", { transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, content.y.label);
      if (content.floor) {
        const level = y.at(content.floor.value);
        drawn(svg, "line", { class: "floor", x1: left, x2: width - right, y1: level, y2: level });
        drawn(svg, "text", { x: width - right, y: level - 5, "text-anchor": "end" }, content.floor.label);
      }
      places = content.series.map((series, i) => {
        const spots = series.points.map((p) => [x.at(p[0]), y.at(p[1])]);
        const stroke = series.pale ? "var(--pale)" : `var(--series-${i % 6})`;
        drawn(svg, "path", {
          class: "curve",
          d: "M" + spots.map((s) => s.map((v) => v.toFixed(1)).join(" ")).join("L"),
          style: `stroke:${stroke};stroke-width:${series.pale ? 1 : 2};stroke-dasharray:${series.pale ? "" : DASHES[i % 6]}`,
        });
        if (series.dots) for (const s of spots) drawn(svg, "circle", { cx: s[0], cy: s[1], r: 4, style: `fill:${stroke}` });
        return spots;
      });
      ring = drawn(svg, "circle", { r: 7, style: "fill:none;stroke:var(--ink);stroke-width:2;display:none" });
      if (selected) select(...selected);
    };

    const select = (i, j) => {
      selected = [i, j];
      const [px, py] = places[i][j];
      ring.setAttribute("cx", px);
      ring.setAttribute("cy", py);
      ring.style.display = "";
      tip.textContent = `${content.series[i].name}\n${content.series[i].points[j][2]}`;
      tip.hidden = false;
      const left = Math.min(Math.max(px - tip.offsetWidth / 2, 0), box.clientWidth - tip.offsetWidth);
      const above = py - tip.offsetHeight - 12;
      tip.style.transform = `translate(${left}px, ${above > 0 ? above : py + 14}px)`;
    };

    const clear = () => {
      selected = null;
      tip.hidden = true;
      ring.style.display = "none";
    };

    const nearest = (event) => {
      const edge = box.getBoundingClientRect();
      const mx = event.clientX - edge.left, my = event.clientY - edge.top;
      let best = null, distance = Infinity;
      places.forEach((spots, i) => spots.forEach(([px, py], j) => {
        const d = (px - mx) ** 2 + (py - my) ** 2;
        if (d < distance) { distance = d; best = [i, j]; }
      }));
      if (best) select(...best);
    };

    box.addEventListener("pointermove", nearest);
    box.addEventListener("pointerdown", nearest);
    box.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") clear(); });
    box.addEventListener("focus", () => { if (!selected && box.matches(":focus-visible")) select(0, 0); });
    box.addEventListener("blur", clear);
    box.addEventListener("keydown", (event) => {
      let [i, j] = selected || [0, 0];
      const stride = event.shiftKey ? 10 : 1;
      if (event.key === "ArrowRight") j += stride;
      else if (event.key === "ArrowLeft") j -= stride;
      else if (event.key === "ArrowDown") i = (i + 1) % places.length;
      else if (event.key === "ArrowUp") i = (i + places.length - 1) % places.length;
      else if (event.key === "Home") j = 0;
      else if (event.key === "End") j = Infinity;
      else if (event.key === "Escape") { clear(); return; }
      else return;
      event.preventDefault();
      select(i, Math.max(0, Math.min(j, places[i].length - 1)));
    });

    const legend = document.createElement("ul");
    legend.className = "legend";
    content.series.forEach((series, i) => {
      const item = document.createElement("li");
      const key = drawn(item, "svg", { viewBox: "0 0 28 12", "aria-hidden": "true" });
      drawn(key, "line", {
        x1: 0, x2: 28, y1: 6, y2: 6,
        style: `stroke:${series.pale ? "var(--pale)" : `var(--series-${i % 6})`};stroke-width:2;stroke-dasharray:${series.pale ? "" : DASHES[i % 6]}`,
      });
      item.append(series.name);
      legend.append(item);
    });
    box.after(legend);
    new ResizeObserver(draw).observe(box);
    draw();
  };

  // ---- phase space -------------------------------------------------------------------------------------------------

  const phase = (root) => {
    const content = data("phase");
    const slider = root.querySelector("input");
    const button = root.querySelector("button");
    const output = root.querySelector("output");
    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    const last = Number(slider.max);
    const panels = ["forward", "reverse"].map((name) => {
      const figure = root.querySelector(`[data-panel="${name}"]`);
      const film = new Image();
      const panel = { ...content[name], plot: figure.querySelector(".plot"), thumb: figure.querySelector(".thumb"), film };
      film.onload = () => render();
      film.src = content[name].film;
      return panel;
    });
    const [low, high] = content.ranges;
    const index = (panel) => Math.round((Number(slider.value) / last) * (panel.times.length - 1));

    const render = () => {
      const shades = { ink: colour("--ink"), line: colour("--line"), quiet: colour("--quiet"), ground: colour("--ground") };
      const hues = [0, 1, 2, 3, 4, 5].map((i) => colour(`--series-${i}`));
      for (const panel of panels) plot(panel, index(panel), shades, hues);
      const [f, r] = panels.map((p) => p.times[index(p)].toFixed(3));
      output.textContent = `frame ${slider.value} of ${last}: forward t = ${f}, reverse t = ${r}`;
      slider.setAttribute("aria-valuetext", output.textContent);
    };

    const plot = (panel, now, shades, hues) => {
      const { plot: canvas, thumb, film } = panel;
      const size = canvas.clientWidth;
      const ratio = window.devicePixelRatio || 1;
      canvas.width = canvas.height = Math.round(size * ratio);
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      const left = 40, bottom = 36, edge = 8;
      const x = axis([low[0], high[0]], false, left, size - edge);
      const y = axis([low[1], high[1]], false, size - bottom, edge);
      pen.font = "12px system-ui, sans-serif";
      pen.lineWidth = 1;
      pen.strokeStyle = shades.line;
      pen.fillStyle = shades.quiet;
      pen.textAlign = "center";
      for (const tick of x.ticks) {
        line(pen, [[x.at(tick), edge], [x.at(tick), size - bottom]]);
        pen.fillText(short(tick), x.at(tick), size - bottom + 15);
      }
      pen.fillText(content.labels[0], (left + size - edge) / 2, size - 4);
      pen.textAlign = "right";
      for (const tick of y.ticks) {
        line(pen, [[left, y.at(tick)], [size - edge, y.at(tick)]]);
        pen.fillText(short(tick), left - 5, y.at(tick) + 4);
      }
      pen.save();
      pen.translate(11, (edge + size - bottom) / 2);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "center";
      pen.fillText(content.labels[1], 0, 0);
      pen.restore();
      pen.strokeStyle = shades.quiet;
      pen.setLineDash([4, 3]);
      for (const curve of content.ellipses) line(pen, curve.map((p) => [x.at(p[0]), y.at(p[1])]));
      pen.setLineDash([]);
      panel.paths.forEach((path, i) => {
        const spots = path.slice(0, now + 1).map((p) => [x.at(p[0]), y.at(p[1])]);
        pen.strokeStyle = pen.fillStyle = hues[i % hues.length];
        pen.globalAlpha = 0.75;
        pen.lineWidth = 1.25;
        line(pen, spots);
        pen.globalAlpha = 1;
        pen.lineWidth = 2;
        disc(pen, spots[0], 4);
        pen.fillStyle = shades.ground;
        pen.fill();
        pen.stroke();
        pen.fillStyle = hues[i % hues.length];
        disc(pen, spots[spots.length - 1], 5);
        pen.fill();
      });
      if (film.complete && film.naturalWidth) {
        const [w, h] = content.size;
        thumb.width = w;
        thumb.height = h;
        thumb.getContext("2d").drawImage(film, 0, now * h, w, h, 0, 0, w, h);
      }
    };

    const line = (pen, spots) => {
      pen.beginPath();
      spots.forEach(([px, py], i) => (i ? pen.lineTo(px, py) : pen.moveTo(px, py)));
      pen.stroke();
    };

    const disc = (pen, [px, py], radius) => {
      pen.beginPath();
      pen.arc(px, py, radius, 0, 2 * Math.PI);
    };

    let playing = false;
    let clock = 0;
    const show = (state) => {
      playing = state;
      button.textContent = playing ? "Pause" : "Play";
    };
    const tick = (time) => {
      if (!playing) return;
      // who asked for less motion gets a still every 0.8 s instead of a film
      const [wait, stride] = calm.matches ? [800, 10] : [50, 1];
      if (time - clock >= wait) {
        clock = time;
        slider.value = Math.min(last, Number(slider.value) + stride);
        render();
      }
      if (Number(slider.value) >= last) show(false);
      else requestAnimationFrame(tick);
    };
    button.addEventListener("click", () => {
      show(!playing);
      if (!playing) return;
      if (Number(slider.value) >= last) { slider.value = 0; render(); }
      clock = performance.now();
      requestAnimationFrame(tick);
    });
    slider.addEventListener("input", () => { show(false); render(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
    new ResizeObserver(render).observe(root);
    render();
  };

  document.querySelectorAll("[data-chart]").forEach(chart);
  document.querySelectorAll("[data-phase]").forEach(phase);
})();
