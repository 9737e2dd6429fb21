// Requests to the server, and the code that opens it.

/** Sends a request; answers `{status, content}`, or throws if the server is not reached. */
export async function ask(path, body) {
  const options = { credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "content-type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const kind = response.headers.get("content-type") || "";
  let content = null;
  if (kind.startsWith("application/json")) content = await response.json();
  else if (response.ok && response.status !== 204) content = await response.arrayBuffer();
  return { status: response.status, content };
}

/** Sends a request until the server has answered, however long it is away. */
export async function insist(path, body, whenAway) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 5000)) {
    try {
      const reply = await ask(path, body);
      if (reply.status < 500) {
        whenAway(false);
        return reply;
      }
    } catch {
      // Away: try again.
    }
    whenAway(true);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

/** 32 hexadecimal digits that nobody has drawn before; works without HTTPS, too. */
export function newClient() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Takes a code from the address, if it holds one, and leaves none there. */
export async function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!found) return;
  history.replaceState(null, "", location.pathname);
  await offerToken(found);
}

/** Whether the server takes this code. */
export async function offerToken(token) {
  const reply = await ask("/api/token", { token });
  return reply.status === 204;
}
