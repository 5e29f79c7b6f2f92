// Parts that a page leaves for later: the link inside is fetched and replaced by the part that it leads to.
"use strict";

async function loadPart(place) {
  const link = place.querySelector("a");
  place.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(place.dataset.load, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const part = page.querySelector("[data-part]") || page.querySelector("main .problem");
    if (!part) throw new Error("no such part");
    place.replaceChildren(document.importNode(part, true));
    place.dispatchEvent(new CustomEvent("loaded", { bubbles: true }));
  } catch (error) {
    const note = document.createElement("p");
    note.className = "problem";
    note.textContent = "This part could not be loaded; follow the link to try again.";
    place.replaceChildren(note, link);
  } finally {
    place.removeAttribute("aria-busy");
  }
}

// A part that is still being made says so, and is asked for again.
document.addEventListener("loaded", (event) => {
  if (event.target.querySelector("[data-unfinished]")) setTimeout(() => loadPart(event.target), 1500);
});

for (const place of document.querySelectorAll("[data-load]")) loadPart(place);

// A long name breaks after a dot, a dash or a stroke rather than within a word.
function breakNicely(name) {
  const parts = name.textContent.split(/(?<=[._/-])/);
  name.replaceChildren(...parts.flatMap((part) => [part, document.createElement("wbr")]));
}

// What needs a script in a page or a part of one: buttons that copy, and the headings beside the cells of a table,
// which a narrow screen shows as a card for each row.
function enliven(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = false;
  for (const table of root.querySelectorAll(".scroll table:has(thead)")) {
    const titles = [...table.querySelectorAll("thead tr:last-child > *")].map((cell) => cell.querySelector(".scale") ? "" : cell.textContent.trim());
    for (const cell of table.querySelectorAll("tbody tr > *")) cell.dataset.title = titles[cell.cellIndex] || "";
    for (const [kind, role] of [["table", "table"], ["thead, tbody", "rowgroup"], ["tr", "row"], ["thead th", "columnheader"], ["tbody th", "rowheader"], ["td", "cell"]]) {
      for (const part of kind === "table" ? [table] : table.querySelectorAll(kind)) part.setAttribute("role", role);
    }
    for (const name of table.querySelectorAll("tbody :is(th, td) > a, td.source")) breakNicely(name);
    table.classList.add("cards");
  }
  for (const name of root.querySelectorAll(".verdict a, thead th.name, .samples span")) breakNicely(name);
}
document.addEventListener("loaded", (event) => enliven(event.target));
enliven(document);

// Text to be taken along.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  } catch (error) {
    button.textContent = "Select the text and copy it";
  }
  setTimeout(() => { button.textContent = said; }, 2500);
});
