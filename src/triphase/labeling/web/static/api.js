// Speaks JSON with the server. What could not be sent is tried again, and the person is told.

const token = document.querySelector('meta[name="csrf"]').content;
const away = document.querySelector("#away");
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function tell(message, signIn = false) {
  away.hidden = !message;
  away.querySelector("span").textContent = message;
  away.querySelector("a").hidden = !signIn;
}

async function once(method, path, body) {
  const headers = { "x-csrf-token": token };
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, {
    method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin",
  });
  const content = await answer.json().catch(() => ({ message: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw new Refused(answer.status, content.message ?? `The server answered ${answer.status}.`);
  return content;
}

// Tries until the server answers. Handing in is safe to repeat: the server knows what it has already taken.
export async function call(method, path, body) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 15000)) {
    try {
      const content = await once(method, path, body);
      tell("");
      return content;
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        tell("You are signed out. Sign in again in a new tab; your work here is kept and will be sent.", true);
      } else if (error instanceof Refused && error.status < 500) {
        tell("");
        throw error;
      } else {
        tell("The server cannot be reached. Your work is kept here and will be sent when it is back.");
      }
      await pause(wait);
    }
  }
}

// For drafts: one attempt, silence if it fails (a copy is in the browser).
export async function attempt(method, path, body) {
  try {
    return await once(method, path, body);
  } catch {
    return null;
  }
}
