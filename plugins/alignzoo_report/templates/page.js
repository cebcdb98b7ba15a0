"use strict";
// Draws the charts. The page allows no eval, so Vega's expressions are interpreted; colours are CSS variables, which
// follow the colour scheme and print without drawing anything again.
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const tip = document.getElementById("tip");
  const font = getComputedStyle(document.body).fontFamily;
  const text = { labelColor: "var(--muted)", titleColor: "var(--muted)", labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal" };
  const config = {
    background: "transparent", font,
    view: { stroke: "transparent" },
    axis: { ...text, gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)", gridOpacity: 0.7 },
    legend: { ...text, labelColor: "var(--ink)", symbolSize: 120, symbolStrokeWidth: 2 },
    line: { strokeWidth: 2 },
    tick: { bandSize: 26 },
  };

  function show(handler, event, item, value) {
    if (value === null || value === undefined || value === "") { tip.hidden = true; return; }
    const lines = typeof value === "object" ? Object.entries(value).filter(([, v]) => v !== undefined && v !== "undefined")
      .map(([k, v]) => `${k}: ${v}`) : [String(value)];
    tip.textContent = lines.join("\n");
    tip.hidden = false;
    const left = Math.min(event.pageX + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${event.pageY + 16}px`;
  }

  function draw(place) {
    if (place.dataset.drawn || !place.clientWidth) return;
    place.dataset.drawn = "yes";
    const spec = { $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container",
      autosize: { type: "fit-x", contains: "padding" }, config, ...specs[place.dataset.chart] };
    const runtime = vega.parse(vegaLite.compile(spec).spec, null, { ast: true });
    new vega.View(runtime, { expr: vegaInterpreter, renderer: "svg", container: place, hover: true, tooltip: show,
      logLevel: vega.Error }).runAsync().then(() => {
        const drawing = place.querySelector("svg");
        drawing.setAttribute("aria-hidden", "true");  // the place has the description, the table the data
        drawing.setAttribute("viewBox", drawing.getAttribute("viewBox") || `0 0 ${drawing.getAttribute("width")} ${drawing.getAttribute("height")}`);
      });
  }

  const drawAll = (within) => within.querySelectorAll(".plot").forEach(draw);
  document.addEventListener("toggle", (event) => { if (event.target.open) drawAll(event.target); }, true);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
  drawAll(document);
})();
