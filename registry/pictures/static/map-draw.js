// Draws points in one canvas: as shapes where there are few, pixel by pixel where there are many.
"use strict";

const FEW = 3000;
const NUM_SHAPES = 8;

// One shape around a place, for paths; sizes are chosen to look alike.
function traceShape(context, shape, x, y, r) {
  const to = (dx, dy, first) => context[first ? "moveTo" : "lineTo"](x + dx * r, y + dy * r);
  const polygon = (...corners) => { corners.forEach(([dx, dy], n) => to(dx, dy, n === 0)); context.closePath(); };
  switch (shape % NUM_SHAPES) {
    case 0: context.moveTo(x + r, y); context.arc(x, y, r, 0, 2 * Math.PI); break;
    case 1: polygon([-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]); break;
    case 2: polygon([0, -1.2], [1.1, .8], [-1.1, .8]); break;
    case 3: polygon([0, -1.3], [1.1, 0], [0, 1.3], [-1.1, 0]); break;
    case 4: polygon([0, 1.2], [1.1, -.8], [-1.1, -.8]); break;
    case 5: polygon([-.4, -1.2], [.4, -1.2], [.4, -.4], [1.2, -.4], [1.2, .4], [.4, .4], [.4, 1.2], [-.4, 1.2], [-.4, .4], [-1.2, .4], [-1.2, -.4], [-.4, -.4]); break;
    case 6: polygon([-1.2, -.6], [1.2, -.6], [1.2, .6], [-1.2, .6]); break;
    default: polygon([0, -1.2], [1.15, -.35], [.7, 1], [-.7, 1], [-1.15, -.35]);
  }
}

// The pixels of each shape around a place, for drawing without paths.
function shapeMasks(radius) {
  const size = 2 * Math.ceil(radius * 1.4) + 1;
  const middle = (size - 1) / 2;
  const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  return Array.from({ length: NUM_SHAPES }, (_, shape) => {
    context.clearRect(0, 0, size, size);
    context.beginPath();
    traceShape(context, shape, middle + .5, middle + .5, radius);
    context.fill();
    const alpha = context.getImageData(0, 0, size, size).data;
    const pixels = [];
    for (let p = 0; p < size * size; p++) if (alpha[4 * p + 3] > 110) pixels.push([p % size - middle, Math.floor(p / size) - middle]);
    return pixels;
  });
}

class MapDrawing {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.readColours();
  }

  // The colours of the style sheet, which differ in the dark.
  readColours() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.series = Array.from({ length: 7 }, (_, n) => colour(`--series-${n + 1}`));
    this.soft = colour("--line-strong");
    this.ink = colour("--ink");
    this.ground = colour("--surface");
    this.mark = colour("--mark");
    this.words = new Map();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    this.ratio = ratio;
    this.canvas.width = Math.max(1, Math.round(clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    this.image = null;
  }

  colourOf(group, groups) { return !groups.labels.length ? this.series[0] : group === groups.rest ? this.soft : this.series[group % 7]; }

  shapeOf(group, groups) { return group === groups.rest ? 0 : group; }

  // view: x and y of the middle in the data, scale in pixels of the screen for one of the data.
  draw(points, view, groups, { found, current, task, regions, selected, lasso, showsExperts }) {
    const { context, canvas } = this;
    const scale = view.scale * this.ratio;
    const left = canvas.width / 2 - view.x * scale;
    const top = canvas.height / 2 + view.y * scale;
    this.place = (x, y) => [left + x * scale, top - y * scale];
    context.clearRect(0, 0, canvas.width, canvas.height);
    const radius = this.radiusFor(points.length, view.zoom) * this.ratio;
    const visible = this.visible(points, scale, left, top, 2 * radius);
    if (visible.length > FEW) this.drawMany(points, visible, scale, left, top, groups, found && new Set(found), radius);
    else this.drawFew(points, visible, groups, found && new Set(found), radius);
    if (regions && groups.number) this.drawHulls(points, regions, groups); // of what is coloured by cluster
    if (showsExperts) this.drawExperts(points, visible, radius);
    if (selected?.size || lasso) this.drawSelection(points, selected, lasso);
    // Where no name may be drawn: on points, as long as they can be counted, and on other names.
    const taken = visible.length > FEW ? [] : visible.map((i) => this.boxOf(...this.place(points.x[i], points.y[i]), radius));
    for (const query of points.queries) taken.push(this.boxOf(...this.place(query.x, query.y), 10 * this.ratio));
    for (const query of points.queries) this.drawQuery(...this.place(query.x, query.y), query.label, taken);
    if (task >= 0) this.drawMark(...this.place(points.x[task], points.y[task]), points.names[task], radius, taken);
    const isFar = visible.length > 60;
    if (isFar && regions) this.drawRegionNames(regions, taken);
    // Of many points some are named until there are clusters, whose names say more.
    const some = regions ? [] : visible.filter((_, n) => n % Math.ceil(visible.length / 12) === 0);
    const named = !isFar ? visible : visible.length <= FEW ? groups.named || [] : some;
    const asked = new Set([points.names[task], ...points.queries.map((query) => query.label)]); // named already
    this.drawNames(points, named.filter((i) => !asked.has(points.names[i]) && (!found || found.includes(i))), radius, taken, isFar && visible.length <= FEW);
    if (current >= 0) this.drawRing(...this.place(points.x[current], points.y[current]), radius);
  }

  // The hull of each cluster that has a colour of its own.
  drawHulls(points, regions, groups) {
    const { context } = this;
    for (const { cluster, hull } of regions) {
      if (!groups.number.has(cluster)) continue;
      context.beginPath();
      for (const i of hull) context.lineTo(...this.place(points.x[i], points.y[i]));
      context.closePath();
      context.lineWidth = 1.5 * this.ratio;
      context.fillStyle = context.strokeStyle = this.colourOf(groups.number.get(cluster), groups);
      context.globalAlpha = .1;
      context.fill();
      context.globalAlpha = .6;
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  // Names of clusters in their middle, the largest first, where they cover no other name.
  drawRegionNames(regions, taken) {
    const { context, ratio, canvas } = this;
    context.font = `600 ${12.5 * ratio}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.lineJoin = "round";
    const names = [];
    for (const { x, y, label } of regions) {
      const [px, py] = this.place(x, y);
      const width = context.measureText(label).width;
      const left = Math.min(Math.max(px - width / 2, 4), canvas.width - width - 4);
      const box = [left, py - 9 * ratio, left + width, py + 9 * ratio];
      if (px < 0 || px > canvas.width || box[1] < 0 || box[3] > canvas.height) continue;
      if (names.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) continue;
      names.push(box);
      this.write(label, left, py);
    }
    taken.push(...names);
  }

  write(text, x, y) {
    const { context } = this;
    context.lineWidth = 4 * this.ratio;
    context.strokeStyle = this.ground;
    context.strokeText(text, x, y);
    context.fillStyle = this.ink;
    context.fillText(text, x, y);
  }

  // A square around each task that experts were trained on.
  drawExperts(points, visible, radius) {
    const { context } = this;
    const side = 2 * radius + 6 * this.ratio;
    context.lineWidth = 2 * this.ratio;
    context.strokeStyle = this.mark;
    for (const i of visible) {
      if (!points.experts?.[i]) continue;
      const [x, y] = this.place(points.x[i], points.y[i]);
      context.strokeRect(x - side / 2, y - side / 2, side, side);
    }
  }

  drawSelection(points, selected, lasso) {
    const { context } = this;
    context.strokeStyle = this.ink;
    const many = selected?.size > 300; // rings would hide what they are around
    context.lineWidth = (many ? 1 : 2) * this.ratio;
    for (const i of selected || []) {
      context.beginPath();
      context.arc(...this.place(points.x[i], points.y[i]), (many ? 2 : 7) * this.ratio, 0, 2 * Math.PI);
      context.stroke();
    }
    if (!lasso) return;
    context.beginPath();
    for (const [x, y] of lasso) context.lineTo(...this.place(x, y));
    context.setLineDash([6 * this.ratio, 4 * this.ratio]);
    context.stroke();
    context.setLineDash([]);
  }

  radiusFor(count, zoom) {
    const least = count > 20000 ? 1.6 : count > 3000 ? 2.4 : count > 400 ? 3.6 : 5.5;
    return Math.min(7, least * Math.max(1, zoom) ** .35);
  }

  visible(points, scale, left, top, edge) {
    const inside = [];
    const right = this.canvas.width + edge;
    const bottom = this.canvas.height + edge;
    for (let i = 0; i < points.length; i++) {
      const x = left + points.x[i] * scale;
      const y = top - points.y[i] * scale;
      if (x > -edge && x < right && y > -edge && y < bottom) inside.push(i);
    }
    return inside;
  }

  drawFew(points, visible, groups, found, radius) {
    const { context } = this;
    const paths = new Map();
    for (const i of visible) {
      const key = found && !found.has(i) ? -1 : groups.of[i];
      if (!paths.has(key)) paths.set(key, []);
      paths.get(key).push(i);
    }
    context.lineWidth = .8 * this.ratio;
    context.strokeStyle = this.ink; // some colours are too pale to stand out from the ground
    for (const key of [...paths.keys()].sort((a, b) => a - b)) {
      context.beginPath();
      for (const i of paths.get(key)) {
        const [x, y] = this.place(points.x[i], points.y[i]);
        traceShape(context, this.shapeOf(key < 0 ? groups.of[i] : key, groups), x, y, radius * (found && key >= 0 ? 1.25 : 1));
      }
      context.globalAlpha = key < 0 ? .3 : 1;
      context.fillStyle = key < 0 ? this.soft : this.colourOf(key, groups);
      context.fill();
      context.globalAlpha = key < 0 ? .2 : .75;
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  // Shapes straight into the pixels: 100,000 of them take a few milliseconds.
  drawMany(points, visible, scale, left, top, groups, found, radius) {
    const { width, height } = this.canvas;
    if (!this.image) {
      this.image = this.context.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.pixels.fill(0);
    if (this.maskRadius !== radius) { this.masks = shapeMasks(radius); this.maskRadius = radius; }
    const offsets = this.masks.map((mask) => Int32Array.from(mask, ([dx, dy]) => dx + dy * width));
    const edge = Math.ceil(radius * 1.4) + 1;
    const colours = Array.from({ length: groups.labels.length || 1 }, (_, g) => this.word(this.colourOf(g, groups)));
    const dim = this.word(this.soft, found ? 70 : 255);
    const { pixels } = this;
    const put = (i, colour, mask) => {
      const x = (left + points.x[i] * scale) | 0;
      const y = (top - points.y[i] * scale) | 0;
      if (x < edge || y < edge || x >= width - edge || y >= height - edge) return;
      const at = x + y * width;
      for (let m = 0; m < mask.length; m++) pixels[at + mask[m]] = colour;
    };
    for (const i of visible) {
      if (found && found.has(i)) continue;
      const group = groups.of[i];
      put(i, found ? dim : colours[group], offsets[this.shapeOf(group, groups) % NUM_SHAPES]);
    }
    if (found) for (const i of found) put(i, colours[groups.of[i]], offsets[this.shapeOf(groups.of[i], groups) % NUM_SHAPES]);
    this.context.putImageData(this.image, 0, 0);
  }

  // A colour as the number that stands for it in the pixels.
  word(colour, alpha = 255) {
    const key = `${colour} ${alpha}`;
    if (!this.words.has(key)) {
      const dot = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
      dot.fillStyle = colour;
      dot.fillRect(0, 0, 1, 1);
      const bytes = dot.getImageData(0, 0, 1, 1).data;
      bytes[3] = alpha;
      this.words.set(key, new Uint32Array(bytes.buffer)[0]);
    }
    return this.words.get(key);
  }

  boxOf(x, y, radius) { return [x - radius, y - radius, x + radius, y + radius]; }

  // Names around points, as long as they cover neither a point nor another name.
  drawNames(points, named, radius, taken, far) {
    for (const i of named) this.drawName(points.names[i], ...this.place(points.x[i], points.y[i]), radius, taken, { far });
  }

  // Boxes for a name around a place, the best first: beside it, above and below, at the corners; then further out.
  spots(x, y, width, gap, far) {
    const half = 8 * this.ratio;
    const spots = [];
    for (let ring = 0; ring < (far ? 6 : 1); ring++) {
      const away = gap + 2.2 * ring * half;
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]]) {
        const out = away * (dx && dy ? .7 : 1);
        const left = dx > 0 ? x + out : dx < 0 ? x - out - width : x - width / 2;
        const middle = y + dy * (out + half);
        spots.push([left, middle - half, left + width, middle + half]);
      }
    }
    return spots;
  }

  drawName(name, x, y, radius, taken, { strong = false, far = strong } = {}) {
    const { context, ratio, canvas } = this;
    context.font = `${strong ? 600 : 400} ${12.5 * ratio}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    const gap = radius + 5 * ratio;
    const spots = this.spots(x, y, context.measureText(name).width, gap, far);
    const within = (b) => b[0] > 0 && b[1] > 0 && b[2] < canvas.width && b[3] < canvas.height;
    const free = (box) => within(box) && !taken.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3]);
    const box = spots.find(free) || (strong ? spots.find(within) || spots[0] : null);
    if (!box) return;
    taken.push(box);
    const [nearX, nearY] = [Math.min(Math.max(x, box[0]), box[2]), Math.min(Math.max(y, box[1]), box[3])];
    const middle = (box[1] + box[3]) / 2;
    context.lineJoin = "round";
    context.lineWidth = ratio;
    context.strokeStyle = context.fillStyle = this.ink;
    if (Math.hypot(nearX - x, nearY - y) > 2 * gap) { // so far away that a line leads to it
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(nearX, nearY);
      context.stroke();
    }
    this.write(name, box[0], middle);
  }

  drawMark(x, y, name, radius, taken) {
    const { context, ratio } = this;
    context.beginPath();
    context.arc(x, y, radius + 3 * ratio, 0, 2 * Math.PI);
    context.fillStyle = this.mark;
    context.fill();
    context.lineWidth = 2 * ratio;
    context.strokeStyle = this.ground;
    context.stroke();
    this.drawName(name, x, y, radius + 3 * ratio, taken, { strong: true });
  }

  // A star with its name: data that is not registered.
  drawQuery(x, y, label, taken) {
    const { context, ratio } = this;
    context.beginPath();
    for (let n = 0; n < 10; n++) {
      const r = (n % 2 ? 5 : 12) * ratio;
      context[n ? "lineTo" : "moveTo"](x + r * Math.sin(n * Math.PI / 5), y - r * Math.cos(n * Math.PI / 5));
    }
    context.closePath();
    context.lineWidth = 4 * ratio;
    context.strokeStyle = this.ground;
    context.stroke();
    context.fillStyle = this.mark;
    context.fill();
    this.drawName(label, x, y, 10 * ratio, taken, { strong: true });
  }

  drawRing(x, y, radius) {
    const { context, ratio } = this;
    for (const [colour, width] of [[this.ground, 6], [this.ink, 2.5]]) {
      context.beginPath();
      context.arc(x, y, radius + 5 * ratio, 0, 2 * Math.PI);
      context.lineWidth = width * ratio;
      context.strokeStyle = colour;
      context.stroke();
    }
  }
}
