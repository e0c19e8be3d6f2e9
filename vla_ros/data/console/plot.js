"use strict";
// Of each joint the chunks, their blend, the command, the measured position and the limits, moving with the time.

const KEPT = 30;            // s of samples and chunks, so that a pause can look back
const FUTURE = 1.2;         // s to the right of now, where chunks reach to
const FRAME = 1000 / 30;    // ms between two pictures
const CALM = 500;           // of those who asked for less motion
const SPANS = [1, 2, 5, 10, 20];

class Plots {
  constructor(place) {
    this.place = place;
    this.joints = [];
    this.views = [];
    this.samples = [];
    this.chunks = new Map();
    this.offset = null;      // s, the robot's time less that of this page
    this.span = 10;
    this.held = null;        // s of the robot's time at which the picture is held, null while it moves
    this.whole = false;
    this.recorded = false;   // what comes after the time that is shown is known too
    this.next = 0;           // ms at which the next picture is due
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.styles = null;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.styles = null; });
    requestAnimationFrame(time => this.frame(time));
  }

  setJoints(joints) {
    this.joints = joints;
    this.samples = [];
    this.chunks.clear();
    this.views = joints.map(() => {
      const box = document.createElement("div"), canvas = document.createElement("canvas");
      box.append(canvas);
      box.addEventListener("click", () => box.classList.toggle("large"));
      box.addEventListener("wheel", event => {
        if (event.ctrlKey || event.shiftKey) { event.preventDefault(); this.zoom(event.deltaY < 0 ? -1 : 1); }
      }, { passive: false });
      return { box, canvas, low: null, high: null };
    });
    this.place.replaceChildren(...this.views.map(view => view.box));
  }

  add(sample) {
    const offset = sample.t - performance.now() / 1000, last = this.samples.at(-1);
    if (last && sample.t < last.t) this.samples = [];   // the clock was set back
    this.samples.push(sample);
    // Arrivals are late by more or less; the picture moves evenly.
    if (this.offset === null || Math.abs(offset - this.offset) > 0.5) this.offset = offset;
    else this.offset += (offset - this.offset) * (offset > this.offset ? 0.3 : 0.02);
    const first = sample.t - KEPT;
    if (this.held === null && this.samples[0].t < first - 2) {
      this.samples.splice(0, this.samples.findIndex(one => one.t >= first));
      for (const [id, chunk] of this.chunks) if (chunk.end < first) this.chunks.delete(id);
    } else if (this.samples.length > 4 * KEPT / 0.04) this.samples.shift();
  }

  addChunk(chunk) {
    this.chunks.set(chunk.id, chunk);
    if (this.chunks.size > 1000) this.chunks.delete(this.chunks.keys().next().value);
  }

  setFate([id, fate]) {
    const chunk = this.chunks.get(id);
    if (chunk) chunk.fate = fate;
  }

  now() { return this.held ?? (this.offset === null ? 0 : this.offset + performance.now() / 1000); }
  hold(on) { this.held = on ? this.now() : null; }
  back(seconds) { if (this.held !== null) this.held += seconds; }
  zoom(step) {
    const at = SPANS.indexOf(this.span) + step;
    this.span = SPANS[Math.min(Math.max(at, 0), SPANS.length - 1)];
  }

  colours() {
    if (!this.styles) {
      const style = getComputedStyle(document.documentElement);
      this.styles = Object.fromEntries(["chunk", "refused", "first", "second", "blend", "command", "measured", "limit", "text", "quiet", "edge"]
        .map(name => [name, style.getPropertyValue("--" + name).trim()]));
    }
    return this.styles;
  }

  frame(time) {
    requestAnimationFrame(next => this.frame(next));
    if (document.hidden || time < this.next - 4 || this.offset === null) return;
    const begin = performance.now(), now = this.now();
    const from = this.recorded ? Math.max(now - 0.6 * this.span, -0.2) : now - this.span;
    const to = this.recorded ? from + this.span : now + Math.min(FUTURE, this.span / 3);
    const samples = this.samples.filter(one => one.t >= from - 0.2 && one.t <= (this.recorded ? to : now));
    const chunks = [...this.chunks.values()].filter(one => one.end > from && one.t < to && one.came <= now);
    const shown = { now, from, to };
    this.views.forEach((view, index) => this.draw(view, index, shown, samples, chunks));
    // A slow machine keeps most of its time for the rest of the page, and for whatever else it does.
    this.next = time + Math.max(this.calm.matches ? CALM : FRAME, 3 * (performance.now() - begin));
  }

  draw(view, index, { now, from, to }, samples, chunks) {
    const { canvas, box } = view, scale = devicePixelRatio || 1;
    const rect = box.getBoundingClientRect();
    if (rect.bottom < 0 || rect.top > innerHeight) return;
    const width = box.clientWidth, height = box.clientHeight;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext("2d"), colour = this.colours(), joint = this.joints[index];
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const [low, high] = this.range(view, index, samples, chunks, joint);
    const x = t => (t - from) / (to - from) * width, y = v => height - 8 - (v - low) / (high - low) * (height - 30);

    pen.lineWidth = 1;
    pen.font = "11px system-ui, sans-serif";
    pen.strokeStyle = colour.edge;
    pen.fillStyle = colour.quiet;
    const step = this.span > 10 ? 5 : this.span > 2 ? 1 : 0.2;
    for (let t = Math.ceil(from / step) * step; t < to; t += step) line(pen, [[x(t), 20], [x(t), height]]);
    pen.strokeStyle = colour.limit;
    pen.setLineDash([5, 4]);
    for (const limit of [joint.lower, joint.upper])
      if (limit >= low && limit <= high) line(pen, [[0, y(limit)], [width, y(limit)]]);
    pen.setLineDash([]);

    for (const chunk of chunks) {
      const points = chunk.rows.map((row, k) => [x(chunk.t + k * chunk.dt), row[index]]).filter(point => point[1] !== null);
      if (!points.length) continue;
      points.push([x(chunk.end), points.at(-1)[1]]);
      pen.strokeStyle = colour[chunk.policy ?? (chunk.fate === "refused" ? "refused" : "chunk")];
      pen.globalAlpha = chunk.fate === "refused" ? 0.9 : chunk.policy ? 0.75 : chunk.fate ? 0.38 : 0.15;
      if (chunk.fate === "refused") pen.setLineDash([2, 3]);
      line(pen, points.map(([a, v]) => [a, y(v)]));
      pen.setLineDash([]);
      pen.fillStyle = pen.strokeStyle;
      pen.fillRect(x(chunk.t) - 1, height - 4, 2, 4);   // the stamp
    }
    pen.globalAlpha = 1;
    for (const [key, name, wide] of [["m", "measured", 1.6], ["b", "blend", 1.2], ["c", "command", 2]]) {
      pen.strokeStyle = colour[name];
      pen.lineWidth = wide;
      let run = [], before = 0;
      for (const one of samples) {
        const value = one[key][index];
        if (value === null || value === undefined || one.t - before > 1.2) { line(pen, run); run = []; }
        if (value !== null && value !== undefined) run.push([x(one.t), y(value)]);
        before = one.t;
      }
      line(pen, run);
    }
    pen.lineWidth = 1;
    pen.strokeStyle = colour.quiet;
    line(pen, [[x(now), 20], [x(now), height]]);
    this.words(pen, colour, joint, samples.findLast(one => one.t <= now), index, width, [low, high], height);
  }

  words(pen, colour, joint, newest, index, width, [low, high], height) {
    pen.fillStyle = colour.text;
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = "left";
    pen.fillText(joint.name, 8, 15);
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = colour.quiet;
    pen.fillText(high.toFixed(2), 4, 32);
    pen.fillText(low.toFixed(2), 4, height - 10);
    pen.textAlign = "right";
    const shown = (value, digits = 3) => value === null || value === undefined ? "–" : value.toFixed(digits);
    if (newest) {
      const measured = `${shown(newest.m[index])} ${joint.unit}`;
      pen.fillStyle = colour.measured;
      pen.fillText(measured, width - 6, 15);
      pen.fillStyle = colour.command;
      pen.fillText(shown(newest.c[index]), width - 14 - pen.measureText(measured).width, 15);
    }
    pen.textAlign = "left";
  }

  // What is to be seen, with air; it follows slowly so that the picture does not jump.
  range(view, index, samples, chunks, joint) {
    let low = Infinity, high = -Infinity;
    const see = value => {
      if (value !== null && value !== undefined) { low = Math.min(low, value); high = Math.max(high, value); }
    };
    if (this.whole) { see(joint.lower); see(joint.upper); }
    for (const one of samples) { see(one.c[index]); see(one.m[index]); }
    for (const chunk of chunks) if (chunk.fate !== "refused") for (const row of chunk.rows) see(row[index]);
    if (low > high) { low = joint.lower; high = joint.upper; }
    const least = 0.04 * (joint.upper - joint.lower), air = Math.max((high - low) * 0.1, (least - (high - low)) / 2);
    low -= air;
    high += air;
    if (view.low === null) { view.low = low; view.high = high; }
    const follow = (old, wanted, outwards) => old + (wanted - old) * (outwards ? 0.5 : 0.06);
    view.low = follow(view.low, low, low < view.low);
    view.high = follow(view.high, high, high > view.high);
    return [view.low, view.high];
  }
}

function line(pen, points) {
  if (points.length < 2) return;
  pen.beginPath();
  pen.moveTo(points[0][0], points[0][1]);
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.stroke();
}
