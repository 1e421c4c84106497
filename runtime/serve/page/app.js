// The page: what the cameras show now, and what they showed before.
import { call, listen, watch } from "./api.js";
import { Camera } from "./cameras.js";
import { make } from "./dom.js";
import { Tags } from "./tags.js";
import { Timeline } from "./timeline.js";

const byId = (id) => document.getElementById(id);
const cameras = new Map();
const timeline = new Timeline(byId("timeline"), byId("events"), byId("span"), byId("which"));
const tags = new Tags(byId);
let connected = false;

async function describe() {
  const answer = await call("/v1/cameras");
  for (const described of answer.cameras) {
    if (!cameras.has(described.id)) {
      const camera = new Camera(described);
      cameras.set(described.id, camera);
      byId("cameras").append(camera.element);
      byId("which").append(make("option", { value: described.id, textContent: described.id }));
    }
    cameras.get(described.id).describe(described);
  }
  byId("zones-choice").hidden = !answer.cameras.some((described) => described.zones.length);
  const running = answer.cameras.filter((described) => described.state === "running").length;
  byId("summary").textContent = connected
    ? `${running} of ${answer.cameras.length} ${answer.cameras.length === 1 ? "camera runs" : "cameras run"}`
    : "Not connected; trying again …";
}

const describeQuietly = () => describe().catch(() => (byId("summary").textContent = "Not connected; trying again …"));

byId("zones").addEventListener("change", () => byId("cameras").classList.toggle("without-zones", !byId("zones").checked));

await describeQuietly();
listen(
  {
    tags: (data) => cameras.get(data.camera)?.update(data),
    event: (event) => timeline.add(event),
    bank: (data) => tags.changed(data),
    tower: (data) => tags.loading(data),
  },
  (state) => {
    connected = state;
    describeQuietly();
    if (!connected) return;
    timeline.load(); // what came while nobody listened
    tags.load();
  },
);
watch((id, blob) => cameras.get(id)?.show(blob));
setInterval(() => document.hidden || describeQuietly(), 5000);
