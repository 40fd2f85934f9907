// Draws the figures when they come into sight, shows answers side by side, and searches the scores.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, parent) => {
    const node = document.createElement(tag);
    node.textContent = text; // text of models is text, never markup
    if (parent) parent.append(node);
    return node;
  };

  function draw(box) {
    const plot = data.plots[box.dataset.plot];
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--faint"), linecolor: colour("--line"), automargin: true, exponentformat: "e" };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), size: 12 },
      margin: { l: 60, r: 16, t: 10, b: 50 }, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, hoverlabel: { align: "left" },
      ...plot.layout, xaxis: { ...axis, ...plot.layout.xaxis }, yaxis: { ...axis, ...plot.layout.yaxis },
    };
    const longest = Math.max(0, ...(layout.yaxis.categoryarray ?? []).map((name) => name.length));
    if (6 * longest > box.clientWidth / 2) { // too little is left for the lines: the names stand above them
      Object.assign(layout, { height: layout.height + 12 * layout.yaxis.categoryarray.length, margin: { l: 8, r: 8, t: 10, b: 50 } });
      Object.assign(layout.yaxis, { ticklabelposition: "inside top", automargin: false, tickfont: { size: 11, color: colour("--ink") } });
    }
    box.dataset.drawn = "yes";
    return Plotly.newPlot(box, structuredClone(plot.data), layout, { responsive: true, displaylogo: false });
  }
  const boxes = [...document.querySelectorAll(".plot")];
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { watch.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "300px" });
  for (const box of boxes) {
    box.style.minHeight = `${data.plots[box.dataset.plot].layout.height}px`; // nothing moves when it is drawn
    watch.observe(box);
  }
  dark.addEventListener("change", () => boxes.filter((box) => box.dataset.drawn).forEach(draw));
  addEventListener("beforeprint", () => boxes.filter((box) => !box.dataset.drawn).forEach(draw));

  const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
  const holds = (text, wanted) => wanted.every((word) => text.toLowerCase().includes(word));

  function samples({ prompts, arms, answers }) {
    const select = byId("prompt");
    const texts = prompts.map((prompt, at) => [prompt.prompt, prompt.human, ...answers.map((row) => row[at] ?? "")].join("\n"));
    function list() {
      const before = select.value, wanted = words(byId("words").value);
      select.replaceChildren();
      prompts.forEach((prompt, at) => {
        if (!holds(texts[at], wanted)) return;
        make("option", `${prompt.category ? prompt.category + ": " : ""}${prompt.prompt.slice(0, 80)}`, select).value = at;
      });
      if ([...select.options].some((option) => option.value === before)) select.value = before;
      byId("count").textContent = `${select.options.length} of ${prompts.length} prompts`;
      show();
    }
    function card(title, text, whole) {
      const article = make("article", "", byId("answers"));
      if (whole) article.className = "whole";
      make("h4", title, article);
      const pre = make("pre", "", article), wanted = words(byId("words").value)[0];
      pre.dir = "auto";
      for (const [at, part] of (wanted ? split(text, wanted) : [text]).entries()) make(at % 2 ? "mark" : "span", part, pre);
    }
    function split(text, word) { // parts without and with the word in turn
      const parts = [], low = text.toLowerCase();
      let from = 0;
      for (let at = low.indexOf(word); at >= 0; at = low.indexOf(word, from)) {
        parts.push(text.slice(from, at), text.slice(at, at + word.length));
        from = at + word.length;
      }
      return [...parts, text.slice(from)];
    }
    function show() {
      byId("answers").replaceChildren();
      if (select.value === "") return;
      const prompt = prompts[select.value], wanted = words(byId("arms").value);
      card(`prompt ${prompt.id}`, prompt.prompt, true);
      if (prompt.human) card("human answer", prompt.human, false);
      arms.forEach((arm, at) => {
        if (holds(arm, wanted)) card(arm, answers[at][select.value] ?? "— not asked", false);
      });
    }
    const step = (by) => {
      const count = select.options.length;
      if (count) { select.selectedIndex = (select.selectedIndex + by + count) % count; show(); }
    };
    select.addEventListener("change", show);
    byId("arms").addEventListener("input", show);
    byId("words").addEventListener("input", list);
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    list();
  }
  if (byId("prompt")) samples(data.samples);

  const number = (value) => value === null ? "—" : typeof value === "number" ? String(+value.toPrecision(4)) : value;
  function search() {
    const { arms, measures, lines, notes } = data.every, wanted = words(byId("search").value), body = byId("scores").tBodies[0];
    const columns = [...byId("scores").tHead.rows[0].cells].map((cell) => cell.textContent);
    const hits = lines.filter((line) => holds(`${measures[line[1]]} ${arms[line[0]]}`, wanted));
    body.replaceChildren(...hits.slice(0, 200).map((line) => {
      const row = document.createElement("tr");
      make("td", measures[line[1]], row);
      make("td", arms[line[0]], row);
      for (const value of line.slice(2, 7)) make("td", number(value), row).className = "number";
      make("td", notes[line[7]], row);
      [...row.cells].forEach((cell, at) => { cell.dataset.column = columns[at]; });
      return row;
    }));
    byId("hits").textContent = `${hits.length} scores${hits.length > 200 ? ", the first 200 are shown" : ""}`;
  }
  if (byId("search")) {
    byId("search").addEventListener("input", search);
    search();
  }
  document.querySelectorAll("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
})();
