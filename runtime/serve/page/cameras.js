// A card a camera: its picture with its zones, its tags as bars around their thresholds, a tag's
// heatmap on click.
import { drawn, make } from "./dom.js";

const BARS = 8;
const MARK = 60; // where every bar has its threshold, in percent of its length

export class Camera {
  constructor(described) {
    this.id = described.id;
    this.picture = make("img", { alt: `Live picture of ${this.id}`, className: "picture" });
    this.heat = make("img", { alt: "", className: "heat", hidden: true });
    this.zones = drawn("svg", { class: "zones", role: "img" });
    this.state = make("p", { className: "soft state" });
    this.bars = make("ul", { className: "bars", ariaLabel: `Tags of ${this.id}` });
    this.rows = new Map();
    this.tag = null;
    this.above = this.below = 1e-3;
    this.element = make(
      "article",
      { className: "camera", ariaLabel: this.id },
      make("div", { className: "frame" }, this.picture, this.heat, this.zones),
      make("div", { className: "title" }, make("h3", { textContent: this.id }), this.state),
      this.bars,
    );
    this.picture.addEventListener("load", () => this.outline());
    this.describe(described);
  }

  describe(described) {
    if (this.described?.zones.length !== described.zones.length) this.size = "";
    this.described = described;
    this.outline();
    const slow = described.age_s !== null && described.age_s > 5;
    this.state.textContent =
      described.error ?? (slow ? `no frame for ${described.age_s.toFixed(0)} s` : described.state);
    this.state.classList.toggle("bad", Boolean(described.error) || slow);
  }

  show(blob) {
    const old = this.picture.src;
    this.picture.src = URL.createObjectURL(blob);
    if (old) URL.revokeObjectURL(old);
  }

  // The zones as polygons in pixels of the picture, which the browser then scales as the picture.
  outline() {
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    const zones = this.described.zones;
    this.zones.toggleAttribute("hidden", !zones.length || !width);
    if (!width || this.size === `${width} ${height}`) return;
    this.size = `${width} ${height}`;
    this.zones.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.zones.setAttribute("aria-label", `Zones: ${zones.map((zone) => zone.id).join(", ")}`);
    const letters = Math.max(width, (height * 16) / 9) / 24;
    const shapes = zones.map((zone) => {
      const corners = zone.points.map(([x, y]) => [x * width, y * height]);
      const [left, top] = corners.reduce((one, other) => (other[0] + other[1] < one[0] + one[1] ? other : one));
      return drawn(
        "g", { "data-zone": zone.id },
        drawn("polygon", { points: corners.join(" ") }),
        drawn("text", { x: left + letters / 4, y: top + letters, "font-size": letters }, zone.id),
      );
    });
    this.zones.replaceChildren(...shapes);
  }

  // Tags that are on first, then the best of the others, so that rows do not jump with every frame.
  update({ tags, zones }) {
    for (const shape of this.zones.children) {
      const zone = zones.find((one) => one.id === shape.dataset.zone);
      shape.classList.toggle("on", Boolean(zone?.on.length));
      shape.lastChild.textContent = [shape.dataset.zone, zone?.on.join(", ")].filter(Boolean).join(": ");
    }
    const on = tags.filter((tag) => tag.on);
    const shown = [...on, ...tags.filter((tag) => !tag.on)].slice(0, Math.max(BARS, on.length));
    for (const tag of shown) {
      const distance = tag.score - tag.threshold;
      this.above = Math.max(this.above, distance);
      this.below = Math.max(this.below, -distance);
    }
    const rows = shown.map((tag) => this.row(tag));
    if (rows.some((row, index) => this.bars.children[index] !== row) || rows.length !== this.bars.children.length) {
      const focused = document.activeElement;
      this.bars.replaceChildren(...rows);
      if (this.bars.contains(focused)) focused.focus();
    }
  }

  row(tag) {
    let row = this.rows.get(tag.name);
    if (!row) {
      const bar = make("span", { className: "fill" });
      const value = make("span", { className: "value" });
      const button = make(
        "button",
        { type: "button", title: "Show where this tag is seen", ariaPressed: "false", onclick: () => this.explain(tag.name) },
        make("span", { className: "name", textContent: tag.name }),
        make("span", { className: "bar" }, bar, make("span", { className: "mark" })),
        value,
      );
      row = make("li", {}, button);
      row.parts = { bar, value, button };
      this.rows.set(tag.name, row);
    }
    const { bar, value, button } = row.parts;
    const distance = tag.score - tag.threshold;
    const length = distance >= 0 ? MARK + (distance / this.above) * (100 - MARK) : MARK * (1 + distance / this.below);
    bar.style.width = `${Math.max(length, 1)}%`;
    value.textContent = tag.probability === null ? tag.score.toFixed(2) : `${(100 * tag.probability).toFixed(0)} %`;
    row.classList.toggle("on", tag.on);
    button.ariaPressed = String(this.tag === tag.name);
    return row;
  }

  // The heatmap is drawn by the server over the newest frame, once a second while it is wanted.
  explain(name) {
    const before = this.rows.get(this.tag);
    if (before) before.parts.button.ariaPressed = "false";
    clearInterval(this.timer);
    this.tag = this.tag === name ? null : name;
    this.heat.hidden = this.tag === null;
    if (this.tag === null) return;
    this.rows.get(name).parts.button.ariaPressed = "true";
    this.heat.alt = `Where ${name} is seen`;
    const draw = () => {
      const next = new Image();
      next.onload = () => (this.heat.src = next.src);
      next.src = `/v1/cameras/${this.id}/heatmap?${new URLSearchParams({ tag: name })}#${Date.now()}`;
    };
    draw();
    this.timer = setInterval(draw, 1000);
  }
}
