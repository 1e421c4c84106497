// When tags were on in the last hours, from their events, and the latest events with their pictures.
import { call } from "./api.js";
import { clock, drawn, make } from "./dom.js";

const LANE = 26, LEFT = 130, TOP = 22;
const MOST_LANES = 24, MOST_PICTURES = 24, PAGES = 5;

export class Timeline {
  constructor(place, list, span, which) {
    Object.assign(this, { place, list, span, which });
    this.events = [];
    for (const choice of [span, which]) choice.addEventListener("change", () => this.load());
    setInterval(() => this.draw(), 5000);
    new ResizeObserver(() => this.draw()).observe(place);
  }

  async load() {
    const since = Date.now() / 1000 - Number(this.span.value);
    const found = [];
    let before;
    for (let page = 0; page < PAGES; page += 1) {
      const query = { since, camera: this.which.value, before, limit: 1000 };
      const answer = await call("/v1/events", { query });
      found.push(...answer.events);
      before = answer.next;
      if (before === null) break;
    }
    found.reverse();
    const newest = found.at(-1)?.id ?? 0;
    this.events = [...found, ...this.events.filter((event) => event.id > newest && this.wants(event))];
    this.draw();
    this.list.replaceChildren(...this.events.filter(isShown).slice(-MOST_PICTURES).reverse().map(card));
  }

  wants(event) {
    return !this.which.value || event.camera === this.which.value;
  }

  add(event) {
    if (!this.wants(event) || this.events.some((known) => known.id === event.id && event.id)) return;
    this.events.push(event);
    if (isShown(event)) this.list.prepend(card(event));
    while (this.list.children.length > MOST_PICTURES) this.list.lastChild.remove();
    this.waiting ??= setTimeout(() => this.draw(), 1000); // many events may come at once
  }

  draw() {
    clearTimeout(this.waiting);
    this.waiting = null;
    const now = Date.now() / 1000, since = now - Number(this.span.value);
    const width = Math.max(this.place.clientWidth, 320);
    const x = (at) => LEFT + ((Math.max(at, since) - since) / (now - since)) * (width - LEFT - 8);
    const lanes = lanesOf(this.events, since, now).slice(0, MOST_LANES);
    const svg = drawn("svg", { width, height: TOP + Math.max(lanes.length, 1) * LANE + 4, role: "img" });
    svg.setAttribute("aria-label", lanes.length ? `${lanes.length} tags were on` : "No tag was on");
    for (let step = 0; step <= 4; step += 1) {
      const at = since + ((now - since) * step) / 4;
      const anchor = step === 4 ? "end" : step === 0 ? "start" : "middle";
      svg.append(drawn("text", { x: x(at), y: 14, "text-anchor": anchor }, clock(at).slice(0, 5)));
      svg.append(drawn("line", { x1: x(at), x2: x(at), y1: TOP - 2, y2: TOP + lanes.length * LANE }));
    }
    lanes.forEach(([name, intervals], index) => {
      const y = TOP + index * LANE;
      svg.append(drawn("text", { x: LEFT - 8, y: y + 17, "text-anchor": "end", class: "lane" }, shorten(name)));
      for (const [start, end] of joined(intervals, (now - since) / width)) {
        const box = drawn("rect", { x: x(start), y: y + 5, width: Math.max(x(end) - x(start), 2), height: LANE - 10, rx: 2 });
        box.append(drawn("title", {}, `${name}: ${clock(start)} – ${clock(end)}`));
        svg.append(box);
      }
    });
    this.place.replaceChildren(svg);
  }
}

const isShown = (event) => event.has_picture || event.kind === "rule";
const shorten = (name) => (name.length > 18 ? `${name.slice(0, 17)}…` : name);

// Tag → intervals, the tag that was on last first. A tag that went off without going on was on before.
function lanesOf(events, since, now) {
  const open = new Map(), lanes = new Map();
  const close = (key, name, start, end) => {
    if (!lanes.has(name)) lanes.set(name, []);
    lanes.get(name).push([start, end]);
    open.delete(key);
  };
  for (const event of events) {
    const name = event.zone ? `${event.tag} in ${event.zone}` : event.tag;
    const key = `${event.camera} ${name}`;
    if (event.kind === "on") open.set(key, [name, event.at]);
    else if (event.kind === "off") close(key, name, open.get(key)?.[1] ?? since, event.at);
  }
  for (const [key, [name, start]] of open) close(key, name, start, now);
  return [...lanes].sort((one, other) => other[1].at(-1)[1] - one[1].at(-1)[1]);
}

// Intervals less than a pixel apart are one box.
function joined(intervals, pixel) {
  const boxes = [];
  for (const [start, end] of [...intervals].sort((one, other) => one[0] - other[0])) {
    const last = boxes.at(-1);
    if (last && start - last[1] < pixel) last[1] = Math.max(last[1], end);
    else boxes.push([start, end]);
  }
  return boxes;
}

function card(event) {
  const where = event.zone ? `${event.camera}, ${event.zone}` : event.camera;
  const text = make(
    "p", {},
    make("strong", { textContent: event.tag }),
    make("span", { className: "soft", textContent: ` ${where}, ${clock(event.at)}` }),
  );
  const picture = event.has_picture
    ? make("a", { href: `/v1/events/${event.id}/snapshot`, target: "_blank", rel: "noopener" },
        make("img", { src: `/v1/events/${event.id}/snapshot`, alt: `${event.tag} at ${where}`, loading: "lazy" }))
    : "";
  if (event.has_clip) text.append(make("a", { href: `/v1/events/${event.id}/clip`, target: "_blank", rel: "noopener", textContent: " clip", ariaLabel: `Clip of ${event.tag} at ${clock(event.at)}` }));
  return make("li", { className: event.kind === "rule" ? "rule" : "" }, picture, text);
}
