// The listener's page: it shows what the server says, and keeps nothing that could be lost.

import { createPlayer } from "./player.js";
import { insist, newClient, offerToken, takeToken } from "./requests.js";

const LEAST_HEARD_S = 0.4;
const CHOICES = { a: "A is better", b: "B is better", same: "No difference" };

const find = (id) => document.getElementById(id);
const player = createPlayer(showPlayer);
const sample = createPlayer(showSample);
let state = null;
let loaded = null; // the trial whose sounds are ready
let busy = true; // something is on its way to the server or from it
let played = {}; // reports that a sound of this pair was heard, under way or done
let rested = 0; // answers at the last break
let levelled = false;

function show(name) {
  for (const section of document.querySelectorAll("main > section")) {
    section.hidden = section.id !== name;
  }
  const title = find(name).querySelector("h1");
  title.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function say(text) {
  find("live").textContent = text;
}

function trouble(text) {
  find("trouble").hidden = !text;
  find("trouble").textContent = text || "";
}

function away(isAway) {
  trouble(isAway ? "The server does not answer. Nothing is lost; trying again." : "");
}

function paragraphs(texts) {
  return texts.map((text) => {
    const paragraph = document.createElement("p");
    paragraph.textContent = text;
    return paragraph;
  });
}

async function refresh() {
  busy = true;
  showPlayer();
  const reply = await insist("/api/session", undefined, away);
  if (reply.status === 401) return show("token");
  if (reply.status !== 200) return trouble(`The server says ${reply.status}. Tell the experimenter.`);
  state = reply.content;
  find("demo").hidden = !state.demo;
  find("level-demo").hidden = !state.demo;
  if (state.stage === "end") {
    find("outcome").replaceChildren(...paragraphs(state.outcome));
    return show("end");
  }
  if (state.stage === "consent") {
    find("consent-text").replaceChildren(...paragraphs(state.consent.split(/\n\s*\n/)));
    return show("consent");
  }
  if (state.answered === 0 && !levelled) return showLevel();
  if (state.answered > rested && state.answered % state.break_after === 0) {
    find("rest-text").textContent =
      `${state.answered} answers are kept. Take off the headphones, rest your ears, and go on when you like.`;
    return show("rest");
  }
  return showTrial();
}

async function showLevel() {
  show("level");
  find("sample").disabled = true;
  const reply = await insist("/api/sample", undefined, away);
  if (reply.status === 200) {
    await sample.load(reply.content, reply.content.slice(0));
    find("sample").disabled = false;
  }
}

async function showTrial() {
  const { trial } = state;
  const name = state.part === "confirmation" ? "Final comparison" : "Comparison";
  const upTo = state.part === "confirmation" ? "of" : "of at most";
  find("trial-title").textContent = `${name} ${state.in_part + 1} ${upTo} ${state.most_in_part}`;
  find("progress").max = state.most_in_part;
  find("progress").value = state.in_part;
  find("undo").disabled = state.undo === null;
  show("trial");
  showPlayer();
  const replies = await Promise.all(
    ["a", "b"].map((side) => insist(`/api/sound/${trial}/${side}`, undefined, away)),
  );
  if (replies.some((reply) => reply.status !== 200)) return refresh();
  await player.load(...replies.map((reply) => reply.content));
  played = {};
  loaded = trial;
  busy = false;
  showPlayer();
  say(`${find("trial-title").textContent} is ready.`);
}

function showSample() {
  find("sample").textContent = sample.playing ? "Stop the sample" : "Play the sample";
}

function showPlayer() {
  const ready = !busy && state !== null && loaded === state.trial;
  for (const side of ["a", "b"]) {
    const letter = side.toUpperCase();
    const button = find(`hear-${side}`);
    const chosen = player.side === side;
    button.disabled = !ready;
    button.setAttribute("aria-pressed", String(chosen));
    const text = chosen && player.playing ? `Playing ${letter}` : `Hear ${letter}`;
    const label = button.querySelector(".state");
    if (label.textContent !== text) label.textContent = text;
  }
  find("play").disabled = find("again").disabled = !ready;
  const play = player.playing ? "Stop" : "Play";
  if (find("play").textContent !== play) find("play").textContent = play;
  find("loop").checked = player.loop;
  find("position").style.transform = `scaleX(${player.position})`;
  const heard = ["a", "b"].filter((side) => ready && player.enough(side, LEAST_HEARD_S));
  // The server takes no answer before it knows of both.
  for (const side of heard) {
    played[side] ??= insist("/api/played", { trial: state.trial, side }, away);
  }
  const enough = heard.length === 2;
  for (const choice of Object.keys(CHOICES)) find(`answer-${choice}`).disabled = !enough;
  find("undo").disabled = !ready || state.undo === null;
  find("pause").disabled = !ready;
  let hint = "Take your time. You can switch while it plays.";
  if (!ready) hint = "The next pair is being prepared.";
  else if (!enough) hint = "Listen to both A and B first.";
  if (find("hint").textContent !== hint) find("hint").textContent = hint;
}

async function answer(choice) {
  if (find(`answer-${choice}`).disabled) return;
  busy = true;
  player.stop();
  showPlayer();
  const body = { client: newClient(), trial: state.trial, choice, heard: player.counts };
  await Promise.all([played.a, played.b]);
  const reply = await insist("/api/answer", body, away);
  say(reply.status === 200 ? `Saved: ${CHOICES[choice]}.` : "The server did not take this answer.");
  await refresh();
}

async function undo() {
  if (find("undo").disabled) return;
  busy = true;
  player.stop();
  showPlayer();
  const reply = await insist("/api/undo", { client: newClient(), trial: state.undo }, away);
  say(reply.status === 200 ? "Your last answer was taken back." : "Nothing to take back.");
  loaded = null;
  await refresh();
}

function rest() {
  player.stop();
  find("rest-text").textContent = "Your answers are kept. Go on when you like.";
  show("rest");
}

const KEYS = {
  1: () => press("hear-a"),
  arrowleft: () => press("hear-a"),
  2: () => press("hear-b"),
  arrowright: () => press("hear-b"),
  p: () => press("play"),
  " ": () => press("play"),
  r: () => press("again"),
  l: () => press("loop"),
  a: () => press("answer-a"),
  b: () => press("answer-b"),
  n: () => press("answer-same"),
  u: () => press("undo"),
};

function press(id) {
  const control = find(id);
  if (!control.disabled) control.click();
}

document.addEventListener("keydown", (event) => {
  if (find("trial").hidden || !find("keys").checked) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  // The space bar belongs to the control that has the focus.
  if (event.key === " " && event.target.closest("button, summary, input, a")) return;
  const work = KEYS[event.key.toLowerCase()];
  if (!work) return;
  event.preventDefault();
  work();
});

find("hear-a").addEventListener("click", () => player.hear("a"));
find("hear-b").addEventListener("click", () => player.hear("b"));
find("play").addEventListener("click", () => player.toggle());
find("again").addEventListener("click", () => player.play());
find("loop").addEventListener("change", (event) => player.repeat(event.target.checked));
for (const choice of Object.keys(CHOICES)) {
  find(`answer-${choice}`).addEventListener("click", () => answer(choice));
}
find("undo").addEventListener("click", undo);
find("pause").addEventListener("click", rest);
find("rest-done").addEventListener("click", () => {
  rested = state.answered;
  if (busy) showTrial();
  else show("trial");
});
find("sample").addEventListener("click", () => sample.toggle());
find("level-done").addEventListener("click", () => {
  sample.stop();
  levelled = true;
  showTrial();
});
find("consent-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  await insist("/api/consent", { client: newClient(), agreed: true }, away);
  await refresh();
});
find("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const taken = await offerToken(find("token-field").value).catch(() => false);
  find("token-wrong").hidden = taken;
  if (taken) await refresh();
});

try {
  await takeToken();
} catch {
  // The server is away: the next request waits for it.
}
await refresh();
