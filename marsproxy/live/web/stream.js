// Server-sent events through fetch, because an EventSource cannot send a token.
const RETRY_MS = [500, 1000, 2000, 5000];
const SILENT_MS = 25_000; // two heartbeats of the proxy, and half a one
const KEY = "mars-admin-token";

export function headers() {
  const token = sessionStorage.getItem(KEY);
  return token ? { authorization: `Bearer ${token}` } : {};
}

export function keep(token) {
  sessionStorage.setItem(KEY, token);
}

// Calls on.event(name, data), on.state("live" | "lost" | "key"); goes on until the page is left.
export async function follow(url, on) {
  for (let failures = 0; ; ) {
    try {
      const answer = await read(url, on, () => { failures = 0; });
      if (answer === "key") { on.state("key"); await on.key(); continue; }
    } catch { /* the proxy is gone, or its connection: told below */ }
    on.state("lost");
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]));
  }
}

async function read(url, on, heard) {
  const abort = new AbortController();
  const answer = await fetch(url, { headers: headers(), signal: abort.signal, cache: "no-store" });
  if (answer.status === 401 || answer.status === 403) return "key";
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  on.state("live");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", timer = 0;
  try {
    for (;;) {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENT_MS);
      const { value, done } = await reader.read();
      if (done) return "ended";
      heard();
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) tell(block, on);
    }
  } finally { clearTimeout(timer); }
}

function tell(block, on) {
  const end = block.indexOf("\n");
  if (block.startsWith("event: ") && end > 0) on.event(block.slice(7, end), block.slice(end + 7));
}
