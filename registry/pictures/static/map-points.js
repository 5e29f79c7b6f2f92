// The points of the map: columns, where they are, and which is near what.
"use strict";

const GRID = 96;

class Points {
  constructor(data) {
    Object.assign(this, data);
    this.length = this.names.length;
    this.x = Float32Array.from(data.x);
    this.y = Float32Array.from(data.y);
    this.lowered = null;
    const all = [...this.queries];
    this.bounds = { left: Infinity, right: -Infinity, low: Infinity, high: -Infinity };
    const grow = (x, y) => {
      const b = this.bounds;
      if (x < b.left) b.left = x;
      if (x > b.right) b.right = x;
      if (y < b.low) b.low = y;
      if (y > b.high) b.high = y;
    };
    for (let i = 0; i < this.length; i++) grow(this.x[i], this.y[i]);
    for (const query of all) grow(query.x, query.y);
    if (!(this.bounds.right >= this.bounds.left)) this.bounds = { left: 0, right: 1, low: 0, high: 1 };
    this.fillGrid();
  }

  // Points sorted by the cell of a square grid that they lie in, so that looking around a place is cheap.
  fillGrid() {
    const b = this.bounds;
    this.cell = Math.max(b.right - b.left, b.high - b.low, 1e-9) / GRID;
    this.starts = new Int32Array(GRID * GRID + 1);
    const cellOf = new Int32Array(this.length);
    for (let i = 0; i < this.length; i++) {
      cellOf[i] = this.column(this.x[i]) + GRID * this.row(this.y[i]);
      this.starts[cellOf[i] + 1]++;
    }
    for (let c = 0; c < GRID * GRID; c++) this.starts[c + 1] += this.starts[c];
    const next = this.starts.slice();
    this.sorted = new Int32Array(this.length);
    for (let i = 0; i < this.length; i++) this.sorted[next[cellOf[i]]++] = i;
  }

  column(x) { return Math.min(GRID - 1, Math.max(0, Math.floor((x - this.bounds.left) / this.cell))); }
  row(y) { return Math.min(GRID - 1, Math.max(0, Math.floor((y - this.bounds.low) / this.cell))); }

  // The nearest point within a radius, or -1.
  nearest(x, y, radius) {
    let best = -1;
    let least = radius * radius;
    const right = this.column(x + radius);
    const top = this.row(y + radius);
    for (let row = this.row(y - radius); row <= top; row++) {
      for (let column = this.column(x - radius); column <= right; column++) {
        const cell = column + GRID * row;
        for (let s = this.starts[cell]; s < this.starts[cell + 1]; s++) {
          const i = this.sorted[s];
          const square = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
          if (square < least || (square === least && i < best)) { least = square; best = i; }
        }
      }
    }
    return best;
  }

  // The nearest point in a direction from another one, within an eighth of a turn to either side; or -1.
  towards(from, dx, dy) {
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < this.length; i++) {
      const x = this.x[i] - this.x[from];
      const y = this.y[i] - this.y[from];
      const along = x * dx + y * dy;
      const aside = Math.abs(x * dy - y * dx);
      if (along <= 0 || aside > along || i === from) continue;
      const cost = x * x + y * y + 2 * aside * aside;
      if (cost < least) { least = cost; best = i; }
    }
    return best;
  }

  // Numbers of the points inside a polygon of places: those from which a ray crosses its edge an odd number of times.
  within(polygon) {
    const inside = (x, y) => polygon.reduce((odd, [ax, ay], n) => {
      const [bx, by] = polygon[(n || polygon.length) - 1];
      return (ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax ? !odd : odd;
    }, false);
    return [...this.names.keys()].filter((i) => inside(this.x[i], this.y[i]));
  }

  tagsOf(i) { return this.tagSets[this.tagSet[i]]; }

  // Numbers of the points that have every word in their name or among their tags.
  find(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return null;
    this.lowered ||= this.names.map((name, i) => `${name} ${this.tagsOf(i).join(" ")}`.toLowerCase());
    return [...this.lowered.keys()].filter((i) => words.every((word) => this.lowered[i].includes(word)));
  }

  // What a point is, in words.
  describe(i) {
    const count = (n) => n.toLocaleString("en-GB");
    const size = `${count(this.classes[i])} ${this.counted[this.kind[i]]}, ${count(this.samples[i])} samples`;
    const near = this.neighbors[i];
    const experts = (this.experts?.[i] || []).join(", ");
    return [size, ...this.tagsOf(i)].join(", ") + (near ? `; nearest: ${near}` : "") + (experts ? `; source of ${experts}` : "");
  }
}

// Clusters as regions, the largest first: where each lies, what it is called, and the hull of most of its points.
function regionsOf(points, clusters) {
  const members = clusters.labels.map(() => []);
  clusters.cluster.forEach((c, i) => { if (c >= 0) members[c].push(i); });
  const least = Math.max(3, points.length / 200);
  const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  return members.map((all, c) => ({ all, c })).filter(({ all }) => all.length >= least).sort((a, b) => b.all.length - a.all.length)
    .map(({ all, c }) => {
      const [x, y] = [middle(all.map((i) => points.x[i])), middle(all.map((i) => points.y[i]))];
      const away = (i) => (points.x[i] - x) ** 2 + (points.y[i] - y) ** 2;
      const near = [...all].sort((a, b) => away(a) - away(b)).slice(0, Math.ceil(.85 * all.length));
      return { cluster: c, x, y, label: clusters.labels[c].length > 30 ? clusters.labels[c].slice(0, 29) + "…" : clusters.labels[c], hull: hullOf(points, near) };
    });
}

// The convex hull of some points, as their numbers in order (Andrew's monotone chain).
function hullOf({ x, y }, some) {
  const sorted = [...some].sort((a, b) => x[a] - x[b] || y[a] - y[b]);
  const chain = (order) => order.reduce((hull, i) => {
    for (let n = hull.length; n > 1; n = hull.length) {
      const [a, b] = [hull[n - 2], hull[n - 1]];
      if ((x[b] - x[a]) * (y[i] - y[a]) - (y[b] - y[a]) * (x[i] - x[a]) > 0) break;
      hull.pop();
    }
    hull.push(i);
    return hull;
  }, []).slice(0, -1);
  return [...chain(sorted), ...chain(sorted.reverse())];
}

const GROUPS_SHOWN = 7;
const CLUSTERS_SHOWN = 24; // where points are so large that their shapes can be told apart

// Groups of points for colours and shapes: a number for each point, and what the numbers mean.
function groupsBy(points, colouring, clusters) {
  const none = new Uint8Array(points.length);
  if (colouring === "kind") {
    return { of: Uint8Array.from(points.kind), labels: points.kinds };
  }
  if (colouring === "tag") return groupsByTag(points);
  if (colouring === "cluster" && clusters) {
    const sizes = new Map();
    for (const c of clusters.cluster) if (c >= 0) sizes.set(c, (sizes.get(c) || 0) + 1);
    const most = points.length > FEW ? GROUPS_SHOWN : CLUSTERS_SHOWN;
    const shown = [...sizes].filter(([, size]) => size > 1).sort((a, b) => b[1] - a[1]).slice(0, most).map(([c]) => c);
    const number = new Map(shown.map((c, n) => [c, n]));
    const rest = clusters.cluster.some((c) => !number.has(c));
    return {
      of: Uint8Array.from(clusters.cluster, (c) => number.get(c) ?? shown.length),
      labels: [...shown.map((c) => clusters.labels[c]), ...(rest ? ["any other, or none"] : [])],
      rest: rest ? shown.length : -1,
      number,
      named: shown.map((c) => points.names.indexOf(clusters.medoids[c])),
    };
  }
  return { of: none, labels: [] };
}

// Tags by how many tasks they add that have none of those before; a task goes with the first that it has.
function groupsByTag(points) {
  const sizes = points.tagSets.map(() => 0);
  for (const set of points.tagSet) sizes[set]++;
  const numbers = points.tagSets.map(() => -1);
  const shown = [];
  while (shown.length < GROUPS_SHOWN) {
    const added = new Map();
    points.tagSets.forEach((tags, set) => {
      if (numbers[set] < 0) for (const tag of tags) added.set(tag, (added.get(tag) || 0) + sizes[set]);
    });
    const [best] = [...added].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    if (!best) break;
    points.tagSets.forEach((tags, set) => { if (numbers[set] < 0 && tags.includes(best[0])) numbers[set] = shown.length; });
    shown.push(best[0]);
  }
  const rest = numbers.some((n, set) => n < 0 && sizes[set]);
  return {
    of: Uint8Array.from(points.tagSet, (set) => (numbers[set] < 0 ? shown.length : numbers[set])),
    labels: [...shown, ...(rest ? ["any other, or none"] : [])],
    rest: rest ? shown.length : -1,
  };
}
