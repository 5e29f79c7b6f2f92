// A matrix of distances in a file: pointing at a cell says which two tasks it is about and how far apart they are.
"use strict";

const matrix = JSON.parse(document.getElementById("matrix-data").textContent);
const bytes = Uint8Array.from(atob(matrix.shares), (character) => character.charCodeAt(0));
const shares = new Uint16Array(bytes.buffer);
const cells = document.querySelector("image.cells");
const card = document.getElementById("matrix-card");

function show(event) {
  const { left, top, width, height } = cells.getBoundingClientRect();
  const count = matrix.names.length;
  const column = Math.floor((event.clientX - left) / width * count);
  const row = Math.floor((event.clientY - top) / height * count);
  card.hidden = column < 0 || row < 0 || column >= count || row >= count;
  if (card.hidden) return;
  const distance = document.createElement("strong");
  distance.textContent = (shares[row * count + column] / 65535 * matrix.largest).toFixed(3);
  card.replaceChildren(distance, `${matrix.names[row]}, ${matrix.names[column]}`);
  const across = Math.min(event.clientX + 14, document.documentElement.clientWidth - card.offsetWidth - 8);
  const down = event.clientY + 18 + card.offsetHeight > innerHeight ? event.clientY - 10 - card.offsetHeight : event.clientY + 18;
  card.style.transform = `translate(${Math.max(8, across)}px, ${down}px)`;
}

cells.addEventListener("pointermove", show);
cells.addEventListener("pointerdown", show);
cells.addEventListener("pointerleave", () => { card.hidden = true; });
