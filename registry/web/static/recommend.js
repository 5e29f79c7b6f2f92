// Sends a file with its progress, starts the job, and goes to its page.
"use strict";

const form = document.getElementById("recommend");

function showProblem(message) {
  const problem = document.getElementById("problem");
  problem.textContent = message;
  problem.hidden = !message;
  if (message) problem.focus();
}

// The sentence of an error of the API.
function sentence(text) {
  try {
    return JSON.parse(text).error.message;
  } catch (error) {
    return "The server could not be reached; try again.";
  }
}

function upload(file) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    const bar = document.getElementById("sent");
    const said = document.getElementById("sending-said");
    document.getElementById("sending").hidden = false;
    const size = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    request.upload.addEventListener("progress", (event) => {
      bar.max = event.total;
      bar.value = event.loaded;
      said.textContent = event.loaded < event.total ? `Sending ${size(event.loaded)} of ${size(event.total)}` : "Checking the file";
    });
    request.addEventListener("load", () => {
      if (request.status === 201) done(JSON.parse(request.responseText).upload);
      else fail(new Error(sentence(request.responseText)));
    });
    request.addEventListener("error", () => fail(new Error(sentence(""))));
    request.open("POST", "/api/v1/uploads");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    const ending = file.name.replace(/[^A-Za-z0-9._-]+/g, "_").slice(-100);
    request.setRequestHeader("Content-Disposition", `attachment; filename="${ending}"`);
    request.send(file);
  });
}

function options() {
  const said = {};
  for (const name of ["k", "num_trials", "max_params", "max_flops", "max_samples", "class_level"]) {
    const input = document.getElementById(name);
    if (!input) continue; // on the first page there are no options
    if (!input.checkValidity()) throw new Error(`${input.labels[0].textContent}: ${input.validationMessage}`);
    if (input.value !== "") said[name] = Number(input.value) * Number(input.dataset.times || 1);
  }
  for (const input of document.querySelectorAll("[data-text]")) {
    if (input.value.trim()) said[input.id] = input.value.trim();
  }
  for (const input of document.querySelectorAll("[data-switch]:checked")) said[input.id] = true;
  const license = document.getElementById("licenses")?.value;
  if (license) said.licenses = [license];
  return said;
}

// What the data is called: the name of the file, as far as names may go.
function nameOfFile() {
  const [file] = document.getElementById("file").files;
  return (file?.name || "").replace(/(\.tar)?\.[a-z0-9]{1,8}$/i, "").replace(/[^\w.-]+/g, "_").slice(0, 128);
}

async function data() {
  const source = form.elements.source.value;
  if (source === "upload") {
    const [file] = document.getElementById("file").files;
    if (!file) throw new Error("Choose a file first.");
    return { upload: await upload(file) };
  }
  const value = document.getElementById(source).value.trim();
  if (!value) throw new Error(source === "task" ? "Name a task first." : "Give a path first.");
  return { [source]: value };
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  showProblem("");
  const button = document.getElementById("ask");
  button.disabled = true;
  try {
    const asked = { kind: "recommend", options: options(), data: await data() };
    const name = nameOfFile();
    if (asked.data.upload && name) asked.name = name;
    const answer = await fetch("/api/v1/jobs", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked),
    });
    const text = await answer.text();
    if (answer.status !== 202) throw new Error(sentence(text));
    location.href = `/jobs/${JSON.parse(text).id}`;
  } catch (error) {
    showProblem(error.message);
    document.getElementById("sending").hidden = true;
    button.disabled = false;
  }
});

// Filling in a field chooses it.
for (const [field, choice] of [["file", "source-upload"], ["path", "source-path"], ["task", "source-task"]]) {
  document.getElementById(field)?.addEventListener("input", () => { const at = document.getElementById(choice); if (at) at.checked = true; });
}

// A file that is dropped on the form is the one to ask about.
form?.addEventListener("dragover", (event) => { event.preventDefault(); form.classList.add("over"); });
form?.addEventListener("dragleave", () => form.classList.remove("over"));
form?.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  const input = document.getElementById("file");
  input.files = event.dataTransfer.files;
  input.dispatchEvent(new Event("input"));
});
