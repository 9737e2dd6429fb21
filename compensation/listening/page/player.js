// Two sounds that play at the same sample; switching between them fades one into the other.

const FADE_S = 0.005; // Time constant: both gains always add up to one.
const STOP_S = 0.008;
const AHEAD_S = 0.03;

/**
 * A player of a pair. `changed()` is called whenever what it shows has changed.
 */
export function createPlayer(changed) {
  let context = null;
  let buffers = null;
  let playing = null; // nodes, and when they began
  let side = "a";
  let loop = false;
  let timer = 0;
  let mark = 0;
  let heard = { a: 0, b: 0 };
  let counts = { switches: 0, starts: 0 };

  function ready() {
    context ??= new AudioContext({ sampleRate: 48000, latencyHint: "interactive" });
    return context;
  }

  /** Counts what has been heard of the present side. */
  function account() {
    if (!playing) return;
    const now = context.currentTime;
    heard[side] += Math.max(0, now - Math.max(mark, playing.began));
    mark = now;
  }

  function nodes(buffer, gain, output) {
    const source = new AudioBufferSourceNode(context, { buffer, loop });
    const level = new GainNode(context, { gain });
    source.connect(level).connect(output);
    return { source, level };
  }

  async function play() {
    if (!buffers) return;
    ready();
    if (context.state !== "running") await context.resume();
    stop();
    const began = context.currentTime + AHEAD_S;
    const output = new GainNode(context, { gain: 0 });
    output.connect(context.destination);
    output.gain.setTargetAtTime(1, began, FADE_S);
    const pair = {
      a: nodes(buffers.a, side === "a" ? 1 : 0, output),
      b: nodes(buffers.b, side === "b" ? 1 : 0, output),
    };
    // One moment for both: from here on they stay at the same sample.
    pair.a.source.start(began);
    pair.b.source.start(began);
    playing = { ...pair, output, began };
    mark = began;
    counts.starts += 1;
    pair.a.source.onended = () => {
      if (playing?.output === output) finish();
    };
    timer = setInterval(() => {
      account();
      changed();
    }, 100);
    changed();
  }

  function finish() {
    account();
    clearInterval(timer);
    playing = null;
    changed();
  }

  function stop() {
    if (!playing) return;
    const { a, b, output } = playing;
    const now = context.currentTime;
    output.gain.setTargetAtTime(0, now, STOP_S);
    a.source.stop(now + 10 * STOP_S);
    b.source.stop(now + 10 * STOP_S);
    finish();
  }

  return {
    play,
    stop,
    toggle: () => (playing ? stop() : play()),

    /** Takes a new pair of WAV files, or one file for both sides. */
    async load(first, second) {
      stop();
      const decoded = await Promise.all([first, second].map((f) => ready().decodeAudioData(f)));
      buffers = { a: decoded[0], b: decoded[1] };
      side = "a";
      heard = { a: 0, b: 0 };
      counts = { switches: 0, starts: 0 };
      changed();
    },

    /** Makes one side heard; it begins to play if nothing does. */
    hear(wanted) {
      account();
      if (wanted !== side) counts.switches += 1;
      side = wanted;
      if (playing) {
        const now = context.currentTime;
        for (const each of ["a", "b"]) {
          playing[each].level.gain.setTargetAtTime(each === side ? 1 : 0, now, FADE_S);
        }
        changed();
        return;
      }
      play();
    },

    repeat(wanted) {
      loop = wanted;
      if (playing) playing.a.source.loop = playing.b.source.loop = loop;
      changed();
    },

    get playing() { return Boolean(playing); },
    get side() { return side; },
    get loop() { return loop; },
    get counts() { return { ...counts, seconds: heard.a + heard.b }; },

    /** Whether so much of a side was heard [s]. */
    enough: (wanted, least) => heard[wanted] >= least,

    /** From 0 to 1. */
    get position() {
      if (!playing) return 0;
      const length = buffers.a.duration;
      const at = Math.max(0, context.currentTime - playing.began);
      return loop ? (at % length) / length : Math.min(1, at / length);
    },
  };
}
