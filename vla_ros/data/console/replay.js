"use strict";
// A recorded episode: the command and the measured position, over them what the policies would have done.

class Replay {
  constructor() {
    const find = name => document.getElementById(`replay-${name}`);
    [this.box, this.name, this.words, this.at, this.time, this.part, this.button] =
      [document.getElementById("replay"), ...["name", "words", "at", "time", "part", "play"].map(find)];
    this.legend = [find("first"), find("second")];
    this.images = find("images");
    this.plots = new Plots(find("plots"));
    this.plots.recorded = true;
    this.playing = null;   // ms of the page at which the episode would have begun
    this.close();
    find("close").addEventListener("click", () => this.close());
    this.button.addEventListener("click", () => this.play(this.playing === null));
    this.at.addEventListener("input", () => { this.play(false); this.show(Number(this.at.value)); });
    this.part.addEventListener("change", () => this.choose(Number(this.part.value)));
  }

  close() {
    this.play(false);
    this.box.hidden = true;
    this.data = null;
    this.pictures = [];
    this.images.replaceChildren();
    this.plots.setJoints([]);
  }

  open(data) {
    this.close();
    this.data = data;
    this.pictures = data.episodes.map(() => data.cameras.map(() => []));
    this.name.textContent = data.name;
    const policies = data.policies.slice(0, -1);   // the last one holds still
    this.legend.forEach((node, index) => {
      node.textContent = policies[index]?.name ?? "";
      node.previousElementSibling.hidden = !policies[index];
    });
    const scores = data.policies.map(one => `${one.name} ${(one.score * 100).toFixed(2)} %`).join(", ");
    this.words.textContent = `Mean distance from what was done, of the joints' ranges: ${scores}${data.verdict ? `; ${data.verdict}` : ""}.`;
    this.part.replaceChildren(...data.episodes.map((episode, index) => {
      const option = document.createElement("option");
      option.value = index;
      option.textContent = episode.instruction || "(no instruction)";
      return option;
    }));
    this.canvases = data.cameras.map(camera => {
      const figure = document.createElement("figure"), canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
      caption.textContent = camera;
      figure.append(canvas, caption);
      this.images.append(figure);
      return canvas;
    });
    this.box.hidden = false;
    if (data.episodes.length) this.choose(0);
    this.box.scrollIntoView({ block: "nearest" });
  }

  choose(index) {
    const episode = this.data.episodes[index], plots = this.plots, dt = this.data.step_dt;
    this.play(false);
    this.index = index;
    this.length = episode.t.at(-1);
    this.shown = [];
    this.at.max = this.length;
    plots.setJoints(this.data.joints);
    plots.held = 0;
    episode.t.forEach((t, k) => plots.add({ t, m: episode.measured[k], c: episode.command[k], b: [] }));
    episode.chunks.forEach((chunk, k) => plots.addChunk({
      id: k, t: chunk.t, dt, rows: chunk.rows, end: chunk.t + dt * chunk.rows.length, came: chunk.t,
      policy: ["first", "second"][chunk.policy],
    }));
    this.show(0);
  }

  take(camera, episode, t, data) {
    const kept = this.pictures[episode]?.[camera];
    if (!kept) return;
    kept.push({ t, blob: new Blob([data], { type: "image/jpeg" }) });
    if (episode === this.index) this.show(this.plots.held);
  }

  show(t) {
    this.plots.held = t;
    this.at.value = t;
    this.time.textContent = `${t.toFixed(1)} of ${this.length.toFixed(1)} s`;
    this.canvases.forEach((canvas, camera) => {
      const picture = this.pictures[this.index][camera].findLast(one => one.t <= t + 1e-3);
      if (picture && this.shown[camera] !== picture) { this.shown[camera] = picture; this.draw(canvas, camera, picture); }
    });
  }

  async draw(canvas, camera, picture) {
    const image = await createImageBitmap(picture.blob);
    if (this.shown[camera] === picture) {
      canvas.width = image.width;
      canvas.height = image.height;
      canvas.style.aspectRatio = `${image.width} / ${image.height}`;
      canvas.getContext("2d").drawImage(image, 0, 0);
    }
    image.close();
  }

  play(on) {
    this.button.textContent = on ? "pause" : "play";
    this.button.setAttribute("aria-pressed", String(on));
    if (!on) { this.playing = null; return; }
    const from = this.plots.held >= this.length ? 0 : this.plots.held;
    this.playing = performance.now() - from * 1e3;
    requestAnimationFrame(() => this.step());
  }

  step() {
    if (this.playing === null) return;
    const t = Math.min((performance.now() - this.playing) / 1e3, this.length);
    this.show(t);
    if (t >= this.length) this.play(false); else requestAnimationFrame(() => this.step());
  }
}
