// The tags of a bundle: thresholds as sliders that show what they would have done, names, banks, undo.
import { call } from "./api.js";
import { make } from "./dom.js";

const STEPS = 200;
const TOWER = {
  off: "",
  loading: "Loading the text tower, which takes some seconds …",
  ready: "The text tower is loaded: a name is added at once.",
};

export class Tags {
  constructor(byId) {
    this.byId = byId;
    this.list = byId("tags");
    // The scores of a tag are asked for when its row comes into view.
    this.seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting) target.reveal();
    });
    byId("search").addEventListener("input", () => this.load());
    byId("bundle").addEventListener("change", () => this.load());
    byId("undo").addEventListener("click", () => this.edit(() => this.call("/v1/bank/undo", { method: "POST" })));
    byId("add").addEventListener("focusin", () => this.prepare());
    byId("add").addEventListener("submit", (event) => {
      event.preventDefault();
      const names = byId("names").value.split(",").map((name) => name.trim()).filter(Boolean);
      this.edit(async () => {
        const bank = await this.call("/v1/tags", { method: "POST", body: { names } });
        byId("names").value = "";
        return bank;
      }, this.tower === "ready" ? "Adding …" : "Adding, as soon as the text tower is loaded …");
    });
    byId("examples").addEventListener("submit", async (event) => {
      event.preventDefault();
      const files = [...byId("example-files").files].slice(0, 16);
      const body = { name: byId("example-name").value, pictures: await Promise.all(files.map(base64)) };
      const done = await this.edit(() => this.call("/v1/tags/examples", { method: "POST", body }));
      if (done) byId("examples").reset();
    });
    byId("upload").addEventListener("change", () => {
      const [file] = byId("upload").files;
      if (file) this.edit(() => this.call("/v1/bank/file", { method: "PUT", body: file }));
      byId("upload").value = "";
    });
  }

  // A request about the bundle that is chosen.
  call(path, { query = {}, ...rest } = {}) {
    return call(path, { query: { ...query, bundle: this.byId("bundle").value }, ...rest });
  }

  // Whoever is in the field is about to add a name: the text tower is loaded meanwhile.
  async prepare() {
    if (this.tower !== "off") return;
    this.tower = "loading";
    try {
      this.loading({ bundle: this.bundle, ...(await this.call("/v1/tags/prepare", { method: "POST" })) });
    } catch {
      this.tower = "off"; // why it cannot be is said when a name is added
    }
  }

  loading({ bundle, tower, tower_failure }) {
    if (bundle !== this.bundle) return;
    this.tower = tower;
    const line = this.byId("tower");
    line.textContent = tower_failure ?? TOWER[tower];
    line.classList.toggle("bad", Boolean(tower_failure));
  }

  changed({ bundle }) {
    if (bundle === this.bundle) this.load();
  }

  async load() {
    const choice = this.byId("bundle");
    if (!choice.length) {
      const { bundles } = await call("/v1/bundles");
      choice.replaceChildren(...bundles.map(({ id, name }) => make("option", { value: id, textContent: `${id} (${name})` })));
      this.byId("bundle-choice").hidden = bundles.length < 2;
    }
    const search = this.byId("search").value;
    const [bank, { tags }] = await Promise.all([this.call("/v1/bank"), this.call("/v1/tags", { query: { search, limit: 300 } })]);
    this.show(bank);
    if (this.list.contains(document.activeElement)) {
      const named = new Map(tags.map((tag) => [tag.name, tag]));
      if ([...this.list.children].every((row) => named.has(row.tag.name)) && tags.length === this.list.children.length) {
        // a slider keeps its focus, and a new name that is being typed stays
        for (const row of this.list.children) row.set(named.get(row.tag.name));
        return;
      }
    }
    this.seen.disconnect();
    this.list.replaceChildren(...tags.map((tag) => this.row(tag)));
    for (const row of this.list.children) this.seen.observe(row);
  }

  show(bank) {
    this.bundle = bank.bundle;
    this.loading(bank);
    this.byId("save").href = `/v1/bank/file?${new URLSearchParams({ bundle: bank.bundle })}`;
    const [last] = bank.edits;
    const undo = this.byId("undo");
    undo.disabled = !last;
    undo.textContent = last ? `Undo: ${last.what.length > 60 ? `${last.what.slice(0, 59)}…` : last.what}` : "Undo";
    this.byId("add").hidden = !bank.can_add_names;
    this.byId("more").hidden = !bank.can_add;
    this.byId("cannot").hidden = bank.can_add_names;
    this.byId("cannot").textContent = bank.why_not ?? "";
  }

  // The server announces the new bank to every page, this one included, which then loads it.
  async edit(change, waiting = "") {
    const told = this.byId("told");
    told.textContent = waiting;
    told.classList.remove("bad");
    try {
      this.show(await change());
      told.textContent = "";
      return true;
    } catch (error) {
      told.textContent = error.message;
      told.classList.add("bad");
      this.load();
      return false;
    }
  }

  row(tag) {
    const slider = make("input", { type: "range", min: 0, max: STEPS, ariaLabel: `Threshold of ${tag.name}` });
    const share = make("span", { className: "share" });
    const name = make("span", { className: "name", textContent: tag.name });
    const rename = make("button", { type: "button", textContent: "Rename", ariaLabel: `Rename ${tag.name}` });
    const remove = make("button", { type: "button", textContent: "Remove", ariaLabel: `Remove ${tag.name}` });
    const row = make("li", {}, name, slider, share, make("span", { className: "actions" }, rename, remove));
    let known = null, low = 0, high = 1;
    const value = () => low + (Number(slider.value) / STEPS) * (high - low);
    const tell = () => {
      const on = value();
      const part = known?.seconds ? `on ${percent(known.quantiles, on)} of ${span(known.seconds)}` : "no scores yet";
      share.textContent = `${on.toFixed(2)}: ${part}`;
      slider.ariaValueText = share.textContent;
    };
    row.set = (next) => {
      row.tag = next;
      const all = [...(known?.quantiles ?? []), next.on];
      const pad = (Math.max(...all) - Math.min(...all)) * 0.1 || 0.5;
      low = Math.min(...all) - pad;
      high = Math.max(...all) + pad;
      slider.value = Math.round(((next.on - low) / (high - low)) * STEPS);
      tell();
      if (!known?.seconds) share.textContent = `${next.on.toFixed(2)} (${next.source})`;
    };
    row.reveal = async () => {
      if (known) return;
      known = { seconds: 0, quantiles: [] };
      try {
        known = await this.call("/v1/tags/scores", { query: { tag: row.tag.name } });
        row.set(row.tag);
      } catch (error) {
        known = null; // removed meanwhile, or too many questions at once: the next look asks again
      }
    };
    slider.addEventListener("input", tell);
    slider.addEventListener("change", () =>
      this.edit(() => this.call("/v1/tags", { method: "PATCH", query: { tag: row.tag.name }, body: { on: value() } })));
    rename.addEventListener("click", () => this.rename(row, name, rename));
    remove.addEventListener("click", () =>
      this.edit(() => this.call("/v1/tags", { method: "DELETE", query: { tag: row.tag.name } })));
    row.set(tag);
    return row;
  }

  // The name becomes a field: Enter keeps the new name, Escape the old one.
  rename(row, name, button) {
    const old = row.tag.name;
    const field = make("input", { value: old, maxLength: 200, ariaLabel: `New name of ${old}` });
    name.replaceChildren(field);
    field.focus();
    field.select();
    const end = () => {
      name.textContent = row.tag.name;
      button.focus();
    };
    field.addEventListener("keydown", async (event) => {
      if (event.key === "Escape") end();
      if (event.key !== "Enter") return;
      const body = { name: field.value.trim() };
      if (!body.name || body.name === old) return end();
      await this.edit(() => this.call("/v1/tags", { method: "PATCH", query: { tag: old }, body }));
      end();
    });
  }
}

// The share of the time in which a score reached the threshold, from its quantiles.
function percent(quantiles, on) {
  const last = quantiles.length - 1;
  const above = quantiles.findIndex((score) => score >= on);
  if (above < 0) return "0 %";
  if (above === 0) return "100 %";
  const step = quantiles[above] - quantiles[above - 1];
  const at = (above - 1 + (step ? (on - quantiles[above - 1]) / step : 1)) / last;
  return `${(100 * (1 - at)).toFixed(at > 0.9 ? 1 : 0)} %`;
}

function base64(file) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(file);
  });
}

function span(seconds) {
  return seconds < 120 ? `${seconds} s` : seconds < 3500 ? `${Math.round(seconds / 60)} minutes` : "the last hour";
}
