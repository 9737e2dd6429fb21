// The experimenter's page: the course of the session, exports, and the calibration.

import { createPlayer } from "./player.js";
import { plot } from "./plots.js";
import { ask, offerToken, takeToken } from "./requests.js";

const EVERY_MS = 2500;
const NOISE_DB = -30;

const find = (id) => document.getElementById(id);
const noise = createPlayer(() => {
  find("noise").textContent = noise.playing ? "Stop the noise" : "Play the noise";
});
noise.repeat(true);
let shown = "";

const STAGES = { consent: "waits for consent", running: "running", end: "ended" };
const MODES = { gain: "gains preserved", loudness: "loudness matched" };

/** An interval in per cent. */
function range(interval) {
  return `${interval.map((value) => Math.round(100 * value)).join("–")}\u00a0%`;
}

function facts(found) {
  const { catch_trials, alike, interval } = found.consistency;
  const { gain, threshold } = found.stopping;
  return {
    Listener: found.listener,
    State: STAGES[found.stage],
    Comparisons: `${found.comparisons} of at most ${found.most_comparisons}`,
    "No difference": found.same,
    "Catch trials answered alike": interval ? `${alike} of ${catch_trials} (${range(interval)})` : "none yet",
    "Utility still to gain": `${gain === null ? "unknown" : gain.toFixed(2)}; below ${threshold} it ends`,
    "Blind confirmation": found.verdict,
    Mode: MODES[found.mode],
    "Highest sample": `${found.maximum_db_spl} dB SPL`,
    "Pairs taken because the search was late": found.fallbacks,
  };
}

function show(found) {
  find("token").hidden = true;
  find("content").hidden = false;
  find("demo").hidden = found.calibration !== null;
  find("title").textContent = `Session of ${found.listener}`;
  find("facts").replaceChildren(
    ...Object.entries(facts(found)).map(([name, value]) => {
      const item = document.createElement("div");
      const term = document.createElement("dt");
      const description = document.createElement("dd");
      term.textContent = name;
      description.textContent = value;
      item.append(term, description);
      return item;
    }),
  );
  find("outcome").replaceChildren(
    ...found.sentences.map((sentence) => {
      const item = document.createElement("li");
      item.textContent = sentence;
      return item;
    }),
  );
  find("faults").hidden = found.faults.length === 0;
  const fault = found.faults.at(-1);
  if (fault) {
    find("faults").textContent = `${found.faults.length} faults; the last at ${fault.at}: ${fault.what}`;
  }
  drawCourse(found);
  drawConfirmation(found.confirmation);
  const measured = found.calibration;
  find("calibration").textContent = measured
    ? `In use: ${measured.transducer}, ${measured.date}, full scale is ${measured.full_scale_db_spl} dB SPL. The noise should measure ${(measured.full_scale_db_spl + NOISE_DB).toFixed(1)} dB SPL.`
    : "This session is a demo: nobody has measured how loud it is.";
}

function drawCourse(found) {
  const { course } = found;
  find("waiting").hidden = course.length > 0;
  if (!course.length) return;
  const most = Math.max(10, course.at(-1).answers);
  const plots = found.start.map((start, place) =>
    plot({
      title: `θ${place + 1}`,
      y: [0, 1],
      most,
      mark: start,
      known: found.known.map((theta) => theta[place]),
      points: course.map((e) => ({
        x: e.answers,
        y: e.theta[place],
        band: [e.theta[place] - e.deviation[place], e.theta[place] + e.deviation[place]],
      })),
    }),
  );
  find("theta").replaceChildren(...plots);
  const { threshold } = found.stopping;
  const gaining = course.filter((e) => e.gain !== null);
  const gains = gaining.map((e) => e.gain);
  const repeated = course.filter((e) => e.consistency.interval !== null);
  find("progress").replaceChildren(
    plot({
      title: "Utility still to gain",
      y: [Math.min(0, ...gains), Math.max(1.5 * threshold, ...gains)],
      most,
      mark: threshold,
      points: gaining.map((e) => ({ x: e.answers, y: e.gain })),
    }),
    plot({
      title: "Catch trials answered alike",
      y: [0, 1],
      most,
      points: repeated.map((e) => ({
        x: e.answers,
        y: e.consistency.share,
        band: e.consistency.interval,
      })),
    }),
  );
}

function drawConfirmation(rows) {
  find("confirmation").replaceChildren(
    ...rows.map((row) => {
      const line = document.createElement("tr");
      const answered = `${row.answered} of ${row.planned}`;
      const share = row.share === null ? "–" : `${Math.round(100 * row.share)} %`;
      const interval = row.interval ? range(row.interval) : "–";
      const { against, best, other, same, verdict } = row;
      for (const value of [against, answered, best, other, same, share, interval, verdict]) {
        const cell = document.createElement("td");
        cell.textContent = value;
        line.append(cell);
      }
      return line;
    }),
  );
}

async function refresh() {
  try {
    const reply = await ask("/api/experimenter");
    if (reply.status === 401) {
      find("token").hidden = false;
      find("content").hidden = true;
    } else if (reply.status === 200) {
      const text = JSON.stringify(reply.content);
      // What has not changed stays, so that nothing moves under a reader.
      if (text !== shown) show(reply.content);
      shown = text;
    }
    find("trouble").hidden = true;
  } catch {
    find("trouble").hidden = false;
    find("trouble").textContent = "The server does not answer.";
  }
}

find("noise").addEventListener("click", async () => {
  if (noise.playing) return noise.stop();
  const reply = await ask("/api/experimenter/noise");
  await noise.load(reply.content, reply.content.slice(0));
  return noise.play();
});
find("calibration-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const now = new Date();
  const date = [now.getFullYear(), now.getMonth() + 1, now.getDate()]
    .map((part) => String(part).padStart(2, "0"))
    .join("-");
  const made = {
    date,
    transducer: find("transducer").value.trim(),
    full_scale_db_spl: Number((Number(find("measured").value) - NOISE_DB).toFixed(1)),
  };
  const text = `${JSON.stringify(made, null, 2)}\n`;
  find("calibration-text").textContent = text;
  URL.revokeObjectURL(find("calibration-file").href);
  find("calibration-file").href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  find("calibration-made").hidden = false;
});
find("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  await offerToken(find("token-field").value).catch(() => false);
  await refresh();
  find("token-wrong").hidden = find("token").hidden;
});

await takeToken().catch(() => {});
await refresh();
setInterval(refresh, EVERY_MS);
