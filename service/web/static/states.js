// The states of a day, in words.

import { el, many } from "./dom.js";

export const STATES = {
  C: "complete", R: "complete, restated since", D: "complete, unconfirmed", W: "waiting for its delay",
  A: "being extracted", L: "late", N: "not requested", F: "failed",
};
export const LETTERS = { complete: "C", doubted: "D", waiting: "W", running: "A", late: "L", "not requested": "N", failed: "F" };
export const STATE_NAMES = { doubted: "complete, unconfirmed", running: "being extracted" };
export const RANK = "FNLADWRC.";

export const glyph = (letter) => (letter === "C" ? "·" : letter);
export const mark = (letter) => el("span", { class: `letter day-${letter}`, title: STATES[letter], "aria-hidden": "true" }, glyph(letter));

// The worst of several jobs on each day.
export function worst(jobs) {
  const longest = Math.max(0, ...jobs.map((days) => days.length));
  let merged = "";
  for (let place = 0; place < longest; place += 1) {
    const letters = jobs.map((days) => days[place] ?? ".");
    merged += [...RANK].find((letter) => letters.includes(letter)) ?? ".";
  }
  return merged;
}

export function counted(letters) {
  const counts = {};
  for (const letter of letters) counts[letter] = (counts[letter] ?? 0) + 1;
  return Object.keys(STATES).filter((letter) => counts[letter]).map((letter) => `${many(counts[letter], "day")} ${STATES[letter]}`).join(", ");
}
