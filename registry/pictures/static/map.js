// The map: moving, zooming and choosing by mouse, touch and keys; search, legend and the card of a task.
"use strict";

// Where the page of a task is; no address can end in dots alone, so such a task is found in the list.
function pathOfTask(name) {
  return /^\.\.?$/.test(name) ? `/?where=name+%3D+%27${name}%27` : `/tasks/${encodeURIComponent(name)}`;
}

class TaskMap {
  constructor(canvas, points) {
    this.canvas = canvas;
    this.points = points;
    this.drawing = new MapDrawing(canvas);
    this.groups = groupsBy(points, "tag");
    this.found = null;
    this.picked = -1;
    this.current = -1;
    this.task = points.names.indexOf(canvas.dataset.task);
    this.opens = Boolean(canvas.dataset.points); // in a file there is no page of a task
    this.pointers = new Map();
    this.regions = null;
    this.selected = new Set();
    this.lasso = null;
    this.selecting = false;
    this.view = { x: 0, y: 0, scale: 1, zoom: 1 };
    this.card = document.getElementById("map-card");
    new ResizeObserver(() => this.resized()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.drawing.readColours(); this.showLegend(); this.redraw(); });
    this.listen();
    this.resized();
    this.fit();
    this.showLegend();
  }

  resized() {
    this.drawing.resize();
    const b = this.points.bounds;
    const { clientWidth, clientHeight } = this.canvas;
    const before = this.whole;
    this.whole = Math.min((clientWidth - 60) / Math.max(b.right - b.left, 1e-9), (clientHeight - 60) / Math.max(b.high - b.low, 1e-9));
    if (before) this.setScale(this.view.scale * this.whole / before);
    this.redraw();
  }

  fit() {
    const b = this.points.bounds;
    Object.assign(this.view, { x: (b.left + b.right) / 2, y: (b.low + b.high) / 2 });
    this.setScale(this.whole);
    this.redraw();
  }

  setScale(scale) {
    this.view.scale = Math.min(Math.max(scale, this.whole / 3), this.whole * 2000);
    this.view.zoom = this.view.scale / this.whole;
  }

  // Zoom so that what is at a place of the screen stays there.
  zoom(factor, px = this.canvas.clientWidth / 2, py = this.canvas.clientHeight / 2) {
    const [x, y] = this.dataAt(px, py);
    this.setScale(this.view.scale * factor);
    const [nowX, nowY] = this.dataAt(px, py);
    this.view.x += x - nowX;
    this.view.y += y - nowY;
    this.redraw();
  }

  dataAt(px, py) {
    const { x, y, scale } = this.view;
    return [x + (px - this.canvas.clientWidth / 2) / scale, y - (py - this.canvas.clientHeight / 2) / scale];
  }

  screenAt(i) {
    const { x, y, scale } = this.view;
    return [(this.points.x[i] - x) * scale + this.canvas.clientWidth / 2, (y - this.points.y[i]) * scale + this.canvas.clientHeight / 2];
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      const began = performance.now();
      this.drawing.draw(this.points, this.view, this.groups, this);
      this.canvas.dataset.frame = (performance.now() - began).toFixed(1);
      this.placeCard();
    });
  }

  // Mouse and touch

  listen() {
    const on = (name, act, options) => this.canvas.addEventListener(name, act, options);
    on("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-Math.max(-120, Math.min(120, event.deltaY * (event.deltaMode ? 30 : 1))) / 300), event.offsetX, event.offsetY);
    }, { passive: false });
    on("pointerdown", (event) => this.pointerDown(event));
    on("pointermove", (event) => this.pointerMoved(event));
    on("pointerup", (event) => this.pointerUp(event));
    on("pointercancel", (event) => this.pointers.delete(event.pointerId));
    on("pointerleave", () => { if (!this.pointers.size && document.activeElement !== this.canvas) this.choose(-1); });
    on("keydown", (event) => this.keyPressed(event));
    on("focus", () => { if (this.current < 0) this.say("Press an arrow key to go from task to task."); });
  }

  pointerDown(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.moved = 0;
    this.lasso = (this.selecting || event.shiftKey) && this.pointers.size === 1 ? [this.dataAt(event.offsetX, event.offsetY)] : null;
  }

  pointerMoved(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) { this.hover(event.offsetX, event.offsetY); return; }
    const now = [event.offsetX, event.offsetY];
    this.moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const apart = (place) => Math.max(8, Math.hypot(place[0] - other[0], place[1] - other[1]));
      this.zoom(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (this.lasso) {
      this.lasso.push(this.dataAt(...now));
      this.redraw();
    } else {
      this.view.x -= (now[0] - before[0]) / this.view.scale;
      this.view.y += (now[1] - before[1]) / this.view.scale;
      this.canvas.classList.add("moving");
      this.redraw();
    }
    this.pointers.set(event.pointerId, now);
  }

  pointerUp(event) {
    this.pointers.delete(event.pointerId);
    this.canvas.classList.remove("moving");
    const { lasso } = this;
    this.lasso = null;
    if (lasso && this.moved > 5) this.select(this.points.within(lasso));
    if (this.moved > 5) return;
    const at = this.pointAt(event.offsetX, event.offsetY);
    if (at < 0) return;
    if (event.pointerType === "mouse" || at === this.current) this.open(at);
    else this.choose(at); // the first touch says what it is, the second opens
  }

  pointAt(px, py) { return this.points.nearest(...this.dataAt(px, py), 12 / this.view.scale); }

  hover(px, py) {
    const at = this.pointAt(px, py);
    this.canvas.classList.toggle("over", at >= 0);
    if (at >= 0 || document.activeElement !== this.canvas) this.choose(at, false);
  }

  // Keys

  keyPressed(event) {
    const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (ways[event.key]) this.step(...ways[event.key]);
    else if (event.key === "Enter" && this.current >= 0) this.open(this.current);
    else if (event.key === " " && this.current >= 0) {
      const others = [...this.selected].filter((i) => i !== this.current);
      this.select(this.selected.has(this.current) ? others : [...others, this.current]);
    }
    else if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "0") this.fit();
    else if (event.key === "Escape") this.choose(-1);
    else return;
    event.preventDefault();
  }

  step(dx, dy) {
    const start = this.current < 0;
    const next = start ? this.first() : this.points.towards(this.current, dx, dy);
    if (next < 0) { this.say("No task further in that direction."); return; }
    this.choose(next);
    const [px, py] = this.screenAt(next);
    if (px < 20 || py < 20 || px > this.canvas.clientWidth - 20 || py > this.canvas.clientHeight - 20) {
      Object.assign(this.view, { x: this.points.x[next], y: this.points.y[next] });
      this.redraw();
    }
  }

  // Where the keys begin: at what was found, the marked task, what is nearest to the query, or the middle.
  first() {
    if (this.found?.length) return this.found[0];
    if (this.task >= 0) return this.task;
    const query = this.points.queries[0];
    const [x, y] = query ? [query.x, query.y] : [this.view.x, this.view.y];
    return this.points.nearest(x, y, Infinity);
  }

  // The chosen task, and what is announced to screen readers

  choose(i, aloud = true) {
    if (i === this.current) return;
    this.current = i;
    if (i >= 0 && aloud) this.say(`${this.points.names[i]}: ${this.points.describe(i)}.${this.opens ? " Enter opens it." : ""}`);
    this.redraw();
  }

  // What is selected is told to the page, which lists it.
  select(some) {
    this.selected = new Set(some);
    this.say(`${this.selected.size} selected.`);
    this.canvas.dispatchEvent(new CustomEvent("selected", { detail: [...this.selected].map((i) => this.points.names[i]) }));
    this.redraw();
  }

  nameClusters(clusters) {
    this.regions = regionsOf(this.points, clusters);
    this.redraw();
  }

  say(text) { document.getElementById("map-said").textContent = text; }

  open(i) {
    if (!this.opens) { this.choose(i); return; }
    location.href = pathOfTask(this.points.names[i]);
  }

  placeCard() {
    const { card, current, points } = this;
    card.hidden = current < 0;
    if (current < 0) return;
    if (card.dataset.task !== String(current)) {
      card.dataset.task = current;
      const name = document.createElement("strong");
      name.textContent = points.names[current];
      card.replaceChildren(name, points.describe(current), ...this.samplesOf(current));
    }
    const [px, py] = this.screenAt(current);
    const left = px + 16 + card.offsetWidth > this.canvas.clientWidth ? px - 16 - card.offsetWidth : px + 16;
    const top = Math.min(Math.max(py - 12, 4), this.canvas.clientHeight - card.offsetHeight - 4);
    card.style.transform = `translate(${Math.max(4, Math.round(left))}px, ${Math.round(top)}px)`;
  }

  // A sample of each of the first classes, where the server keeps some: tiles of 64 pixels, drawn at half.
  samplesOf(i) {
    const tiles = this.opens && this.points.sheets?.[i];
    if (!tiles) return [];
    const [columns, rows] = tiles;
    const make = (tag, values) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
      return element;
    };
    const shown = Math.min(columns, 5);
    const svg = make("svg", { class: "tiles", viewBox: `0 0 ${64 * shown} 64`, width: 40 * shown, height: 40 });
    svg.append(make("image", { href: `/tasks/${encodeURIComponent(this.points.names[i])}/sheet`, width: 64 * columns, height: 64 * rows }));
    return [svg];
  }

  search(text) {
    this.picked = -1;
    this.found = this.points.find(text);
    this.markPicked();
    const note = document.getElementById("map-found");
    note.textContent = this.found ? (this.found.length ? `${this.found.length.toLocaleString("en-GB")} found, drawn in colour.` : "None found; try a shorter word.") : "";
    this.redraw();
  }

  // Bring what was found into view.
  showFound() {
    if (!this.found?.length) return;
    const xs = this.found.map((i) => this.points.x[i]);
    const ys = this.found.map((i) => this.points.y[i]);
    const ends = (values) => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
    const [left, right] = ends(xs);
    const [low, high] = ends(ys);
    Object.assign(this.view, { x: (left + right) / 2, y: (low + high) / 2 });
    const room = Math.min(this.canvas.clientWidth / Math.max(right - left, 1e-9), this.canvas.clientHeight / Math.max(high - low, 1e-9));
    this.setScale(Math.min(.7 * room, this.whole * 3)); // no closer than shows what lies around it
    this.choose(this.found[0]);
    this.redraw();
  }

  // Draw only the tasks of one group in colour, or all of them again.
  pickOut(group) {
    this.picked = this.picked === group ? -1 : group;
    this.found = this.picked < 0 ? null : [...this.groups.of.keys()].filter((i) => this.groups.of[i] === group);
    document.getElementById("map-search").value = "";
    document.getElementById("map-found").textContent = "";
    this.markPicked();
    this.redraw();
  }

  markPicked() {
    document.querySelectorAll("#map-legend button").forEach((button, group) => button.setAttribute("aria-pressed", String(group === this.picked)));
  }

  colourBy(colouring, clusters) {
    if (this.picked >= 0) this.pickOut(this.picked);
    this.groups = groupsBy(this.points, colouring, clusters);
    this.showLegend();
    this.redraw();
  }

  showLegend() {
    const ratio = window.devicePixelRatio || 1;
    const sizes = this.groups.labels.map(() => 0);
    for (const group of this.groups.of) sizes[group]++;
    const entries = this.groups.labels.map((label, group) => {
      const entry = document.createElement("li");
      const sign = Object.assign(document.createElement("canvas"), { width: 16 * ratio, height: 16 * ratio });
      const context = sign.getContext("2d");
      context.beginPath();
      traceShape(context, this.drawing.shapeOf(group, this.groups), 8 * ratio, 8 * ratio, 5.5 * ratio);
      context.fillStyle = this.drawing.colourOf(group, this.groups);
      context.fill();
      sign.setAttribute("aria-hidden", "true");
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(sign, `${label}: ${sizes[group].toLocaleString("en-GB")}`);
      button.addEventListener("click", () => this.pickOut(group));
      entry.append(button);
      return entry;
    });
    document.getElementById("map-legend").replaceChildren(...entries);
    this.markPicked();
  }
}

// Ask until the answer is there: the first map of a registry takes a while.
async function untilMade(address, note) {
  for (;;) {
    const answer = await fetch(address);
    if (answer.status !== 202) {
      const text = await answer.text();
      if (answer.ok) return JSON.parse(text);
      throw new Error(new DOMParser().parseFromString(text, "text/html").querySelector("main .problem")?.textContent || "The map could not be made.");
    }
    note(JSON.parse(await answer.text()));
    await new Promise((done) => setTimeout(done, 1000));
  }
}

function describeQuality(points) {
  const place = document.getElementById("map-quality");
  if (!place || points.trustworthiness === null || points.stress === null) return; // a file says it in its caption
  place.textContent =
    `Trustworthiness ${points.trustworthiness.toFixed(2)} of 1: how far tasks that are drawn near each other are near each other in truth. ` +
    `Stress ${points.stress.toFixed(2)}: how far distances here differ from the true ones, as a share of them; 0 would be none.`;
}

async function start() {
  const canvas = document.getElementById("map");
  const data = JSON.parse(document.getElementById("map-data")?.textContent || "null"); // in a file, all is inside
  const wait = document.getElementById("map-wait");
  wait.textContent = "Loading the map …";
  let points;
  try {
    const began = Date.now();
    points = new Points(data ? data.points : await untilMade(canvas.dataset.points, ({ tasks, seconds }) => {
      wait.textContent = `Laying out ${tasks.toLocaleString("en-GB")} tasks, once: about ${seconds} seconds where nothing else runs; ${Math.round((Date.now() - began) / 1000)} are over …`;
    }));
  } catch (error) {
    wait.textContent = error.message;
    return;
  }
  if (!points.length) {
    wait.textContent = "No task to draw yet. Add some with t2v task add NAME DATA.";
    return;
  }
  wait.hidden = true;
  describeQuality(points);
  const map = new TaskMap(canvas, points);
  window.taskMap = map; // for the console, and for tests
  canvas.dataset.ready = String(points.length);
  const at = (id) => document.getElementById(id);
  at("map-in").addEventListener("click", () => map.zoom(1.5));
  at("map-out").addEventListener("click", () => map.zoom(1 / 1.5));
  at("map-fit").addEventListener("click", () => map.fit());
  at("map-search").addEventListener("input", (event) => map.search(event.target.value));
  at("map-search").addEventListener("keydown", (event) => { if (event.key === "Enter") { map.showFound(); canvas.focus(); event.preventDefault(); } });
  let clusters = data?.clusters;
  if (data) map.colourBy(at("map-colour").value, clusters);
  if (clusters) map.nameClusters(clusters);
  at("map-select")?.addEventListener("click", (event) => {
    map.selecting = !map.selecting;
    event.currentTarget.setAttribute("aria-pressed", String(map.selecting));
  });
  at("map-experts")?.addEventListener("change", (event) => { map.showsExperts = event.target.checked; map.redraw(); });
  const findClusters = async (note) => {
    clusters ||= await untilMade(canvas.dataset.clusters, () => note("Looking for clusters …"));
    note("");
    if (!map.regions) map.nameClusters(clusters);
  };
  if (!clusters && points.length > 60) findClusters((text) => { at("map-found").textContent = text; }).catch(() => {}); // names only
  at("map-colour").addEventListener("change", async (event) => {
    const colouring = event.target.value;
    const note = at("map-found");
    if (colouring === "cluster" && !clusters) {
      try {
        await findClusters((text) => { note.textContent = text; });
      } catch (error) {
        note.textContent = error.message;
      }
    }
    if (event.target.value === colouring) map.colourBy(colouring, clusters);
  });
}

start();
