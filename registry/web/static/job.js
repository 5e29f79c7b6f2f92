// Follows a job by server-sent events; where these fail, the page is loaded again every few seconds.
"use strict";

const place = document.getElementById("progress");
const events = new EventSource(place.dataset.events);
const stages = JSON.parse(place.dataset.stages);
const again = () => location.reload();

events.addEventListener("progress", (event) => {
  const job = JSON.parse(event.data);
  const { stage, done, total } = job.progress || {};
  const bar = document.getElementById("bar");
  const said = stage ? stages[stage] || stage[0].toUpperCase() + stage.slice(1) : job.state === "queued" ? "Waiting for its turn" : "Starting";
  const label = document.getElementById("stage");
  if (label.textContent !== said) label.textContent = said; // said aloud once
  if (total) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value");
  }
  const count = (n) => n.toLocaleString("en-GB");
  document.getElementById("counted").textContent = total ? `${count(done)} of ${count(total)}` : "";
});
events.addEventListener("end", () => { events.close(); again(); });
events.addEventListener("error", () => {
  if (events.readyState === EventSource.CLOSED) setTimeout(again, 3000);
});
