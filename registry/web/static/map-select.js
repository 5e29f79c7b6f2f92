// Lists what is selected on the map, and what lies nearest to it.
"use strict";

const SELECTED_SHOWN = 30;
const ASKED = 12; // tasks of the selection whose neighbours are asked for

function listed(title, names, note = () => "") {
  const heading = Object.assign(document.createElement("h3"), { textContent: title });
  const list = Object.assign(document.createElement("ul"), { className: "selected" });
  list.append(...names.slice(0, SELECTED_SHOWN).map((name) => {
    const entry = document.createElement("li");
    entry.append(Object.assign(document.createElement("a"), { href: pathOfTask(name), textContent: name }), note(name));
    return entry;
  }));
  if (names.length > SELECTED_SHOWN) list.append(Object.assign(document.createElement("li"), { textContent: `and ${(names.length - SELECTED_SHOWN).toLocaleString("en-GB")} more` }));
  return [heading, list];
}

document.getElementById("map").addEventListener("selected", async ({ detail: names }) => {
  const place = document.getElementById("map-selected");
  place.hidden = !names.length;
  const own = new Set(names);
  const parts = listed(`${names.length.toLocaleString("en-GB")} selected`, names);
  if (names.length === 2) {
    const query = new URLSearchParams({ a: names[0], b: names[1] });
    parts.push(Object.assign(document.createElement("a"), { className: "button quiet", href: `/compare?${query}`, textContent: "Compare the two" }));
  }
  place.replaceChildren(...parts);
  place.dataset.asked = names.join();
  const answers = await Promise.all(names.slice(0, ASKED).map(async (name) => {
    const answer = await fetch(`/api/v1/tasks/${encodeURIComponent(name)}/neighbors?k=${Math.min(own.size, 90) + 8}`);
    return answer.ok ? (await answer.json()).neighbors : [];
  }));
  if (place.dataset.asked !== names.join()) return; // something else was selected meanwhile
  const nearest = new Map();
  for (const { task, distance } of answers.flat()) {
    if (!own.has(task)) nearest.set(task, Math.min(distance, nearest.get(task) ?? Infinity));
  }
  const others = [...nearest.keys()].sort((a, b) => nearest.get(a) - nearest.get(b)).slice(0, 12);
  const of = names.length > ASKED ? ` to the first ${ASKED}` : "";
  if (others.length) place.append(...listed(`Nearest${of}`, others, (name) => ` ${nearest.get(name).toFixed(3)}`));
});
