// Requests to the API, and its two endless answers. Each page holds two connections for them, of
// the six that a browser opens to one host, and none while it is hidden.

export class Refused extends Error {}

export async function call(path, { method = "GET", query = {}, body } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  const isFile = body instanceof Blob;
  const type = isFile ? "application/octet-stream" : "application/json";
  const headers = body === undefined ? {} : { "Content-Type": type };
  const answer = await fetch(url, { method, headers, body: isFile ? body : JSON.stringify(body) });
  if (answer.status === 401) location.assign("/login");
  const document = await answer.json();
  if (!answer.ok) throw new Refused(document.error);
  return document;
}

// Calls handlers[name](data) for each event, and `state(connected)`.
export function listen(handlers, state) {
  let source = null;
  const open = () => {
    source = new EventSource("/v1/stream");
    source.onopen = () => state(true);
    source.onerror = () => state(false);
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
  };
  whileVisible(open, () => source?.close());
}

// Calls show(camera, blob) for each live picture.
export function watch(show) {
  let abort = null;
  const open = async () => {
    const mine = (abort = new AbortController());
    while (!mine.signal.aborted) {
      try {
        const answer = await fetch("/v1/live", { signal: mine.signal });
        if (answer.ok) await readParts(answer.body.getReader(), show);
      } catch (error) {
        if (mine.signal.aborted) return;
      }
      await new Promise((done) => setTimeout(done, 2000));
    }
  };
  whileVisible(open, () => abort?.abort());
}

function whileVisible(open, close) {
  const change = () => (document.hidden ? close() : open());
  document.addEventListener("visibilitychange", change);
  window.addEventListener("pagehide", close);
  if (!document.hidden) open();
}

async function readParts(reader, show) {
  const end = [13, 10, 13, 10]; // the empty line behind the head of a part
  let held = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(held.length + value.length);
    joined.set(held);
    joined.set(value, held.length);
    held = joined;
    for (;;) {
      const at = held.findIndex((_, index) => end.every((byte, place) => held[index + place] === byte));
      if (at < 0) break;
      const head = new TextDecoder().decode(held.subarray(0, at));
      const size = Number(/Content-Length: (\d+)/i.exec(head)[1]);
      const begin = at + end.length;
      if (held.length < begin + size + 2) break;
      const picture = new Blob([held.slice(begin, begin + size)], { type: "image/jpeg" });
      show(/X-Camera: (\S+)/i.exec(head)[1], picture);
      held = held.slice(begin + size + 2);
    }
  }
}
